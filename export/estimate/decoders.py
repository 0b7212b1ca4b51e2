"""The phone forms of VAE decoders, from sizes alone, on PyTorch's meta device."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from export.phone import wan_vae
from export.phone.vae import PhoneDecoder
from export.pytorch import vae as torch_vae
from export.pytorch.load import state_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.vae.family import family_member
from mobile_video_jax.vae.wan.config import PUBLISHED, WanVaeConfig
from mobile_video_jax.vae.wan.model import WanVae

WAN = "wan"  # the decoder of Wan's VAE of a compression


def phone_decoder(
    name: str, compression: str, grid: tuple[int, int], *, starts: bool
) -> PhoneDecoder | wan_vae.PhoneDecoder:
    """The decoder of a size of vae.family, or WAN, for latent frames of so many rows and columns.

    Raises UserError where there is none.
    """
    with torch.device("meta"):
        if name != WAN:
            config = family_member(name, compression)
            return PhoneDecoder(torch_vae.Decoder(config), grid, starts=starts).to("meta")
        for published in PUBLISHED:
            if str(published.strides) == compression:
                return wan_vae.PhoneDecoder(published, _weights(published), grid, starts=starts).to("meta")
    known = " and ".join(str(published.strides) for published in PUBLISHED)
    raise UserError(f"Wan's decoders are of {known}, not of {compression}: choose another --decoder")


def _weights(config: WanVaeConfig) -> dict[str, Tensor]:
    latents = jnp.zeros((1, 1, 1, 1, config.strides.channels))
    shapes = jax.eval_shape(lambda: WanVae(config).init(jax.random.key(0), latents, method="decode")["params"])
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), nn.unbox(shapes))
    return state_dict(zeros["decoder"])
