"""FLOPs of decoding, from shapes alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.model import Vae


def decoder_flops_per_frame(config: VaeConfig, clip: ClipShape) -> int:
    """FLOPs of decoding a clip over its frames."""
    vae, (frames, rows, columns) = Vae(config), clip.latent(config.strides)
    latents = jax.ShapeDtypeStruct((1, frames, rows, columns, config.strides.channels), jnp.float32)
    video = jax.ShapeDtypeStruct((1, clip.frames, clip.height, clip.width, 3), jnp.float32)
    params = nn.unbox(jax.eval_shape(lambda video: init(vae, jax.random.key(0), video), video))
    return sum(count_flops(lambda p, z: apply(vae, p, z, method="decode"), params, latents).values()) // clip.frames
