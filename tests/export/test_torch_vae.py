"""The decoder's PyTorch mirror equals it, whole and chunk by chunk."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from export.pytorch.load import load_params
from export.pytorch.vae import Decoder
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.model import Vae
from tests.nets import normal, params_like

OMNI = VaeConfig("t2_s4_c4", (6, 8), (1, 1), (8, 12), (1, 2), head_dim=6, attention_window=2, omni=True)
PLAIN = dataclasses.replace(OMNI, compression="t2_s2_c4", attention_blocks=2, omni=False)
PACKED = dataclasses.replace(PLAIN, compression="t2_s2_c1_p2")  # one channel at each of the four places of a position
LATENTS = (1, 3, 2, 3, 4)


def mirror(config: VaeConfig, params: dict) -> Decoder:
    decoder = Decoder(config)
    load_params(decoder, params["decoder"])
    return decoder


def close(actual: torch.Tensor, expected: jax.Array) -> None:
    np.testing.assert_allclose(actual.detach(), expected, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("config", [OMNI, PLAIN, PACKED], ids=["omni", "plain", "packed"])
def test_the_mirror_equals_the_decoder_whole_and_chunk_by_chunk(config: VaeConfig):
    vae, latents = Vae(config), normal(0, *LATENTS)
    image = tuple(normal(i, 1, 1, 4 >> i, 6 >> i, width) for i, width in enumerate(config.encoder_widths))
    image = image if config.omni else None
    if config is PLAIN:
        params = params_like(vae, normal(0, 1, 3, 4, 6, 3))
    else:
        params = params_like(vae, normal(0, 1, 3, 8, 12, 3))
    expected = jax.jit(lambda p, z, i: vae.apply({"params": p}, z, i, method="decode"))(params, latents, image)
    decoder, z = mirror(config, params), torch.tensor(np.asarray(latents))
    features = None if image is None else [torch.tensor(np.asarray(level)) for level in image]
    close(decoder(z, image=features)[0], expected)
    first, past = decoder(z[:, :1], image=features)
    second, past = decoder(z[:, 1:], past, features)
    close(torch.cat([first, second], dim=1), expected)
    sizes = {name: values.shape[1] for name, values in past.items()}
    assert sizes["level_1_block_0_conv_in"] == 2 and sizes["attention_0"] == 1
