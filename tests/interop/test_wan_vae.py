"""Our VAE with Wan's weights codes as diffusers' class does, whole and chunk by chunk."""

from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.mapping import published, read_params
from mobile_video_jax.interop.wan_vae import latent_stats, settings, sources, vae_config
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.vae.coder import ClipCoder
from mobile_video_jax.vae.wan.model import WanVae
from tests.interop.test_wan_transformer import pack

SMALL: dict[str, Any] = {"base_dim": 4, "z_dim": 3, "num_res_blocks": 1, "latents_mean": [0.1, -0.2, 0.3]}
KINDS: dict[str, dict[str, Any]] = {
    "2.1": {**SMALL, "latents_std": [1.5, 2.0, 0.5]},
    "2.2": {
        **{**SMALL, "latents_std": [1.5, 2.0, 0.5], "dim_mult": [1, 2, 2, 2], "decoder_base_dim": 6},
        **{"temperal_downsample": [False, True, True], "is_residual": True, "patch_size": 2},
        **{"in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16},
    },
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request) -> Any:
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKLWan(**KINDS[request.param]).eval()
    for name, x in theirs.named_parameters():
        torch.nn.init.normal_(x, mean=float(name.endswith("gamma")), std=0.2)
    config = vae_config(theirs.config)
    tensors = {name: x.detach().numpy() for name, x in theirs.state_dict().items()}
    side = config.strides.space
    shapes = nn.unbox(jax.eval_shape(lambda: init(WanVae(config), jax.random.key(0), jnp.zeros((1, 1, side, side, 3)))))
    params = jax.tree.map(jnp.asarray, read_params(tensors, sources(config), shapes, "vae"))
    return SimpleNamespace(theirs=theirs, config=config, tensors=tensors, vae=WanVae(config), params=params)


def relative(ours: Any, expected: np.ndarray) -> float:
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("frames", [pytest.param(1, marks=pytest.mark.slow), 9])
def test_moments_and_pixels_are_equal(pair, frames):
    torch = pytest.importorskip("torch")
    side = pair.config.strides.space
    video = np.random.default_rng(0).uniform(-1, 1, (1, frames, 2 * side, side, 3)).astype(np.float32)
    with torch.no_grad():
        posterior = pair.theirs.encode(torch.tensor(video).permute(0, 4, 1, 2, 3)).latent_dist
        decoded = pair.theirs.decode(posterior.mean).sample.permute(0, 2, 3, 4, 1).numpy()
    ours = apply(pair.vae, pair.params, jnp.asarray(video), method="encode")
    assert relative(ours.mean, pack(posterior.mean.numpy())) <= 1e-4
    assert relative(ours.log_variance, pack(posterior.logvar.numpy())) <= 1e-4
    latents = jnp.asarray(pack(posterior.mean.numpy()))
    assert relative(apply(pair.vae, pair.params, latents, method="decode"), decoded) <= 1e-4


@pytest.mark.slow
def test_chunk_by_chunk_equals_the_whole_clip(pair):
    side, coder = pair.config.strides.space, ClipCoder(pair.vae, pair.params)
    clip = np.random.default_rng(1).integers(0, 256, (1, 13, side, side, 3), np.uint8)
    whole = next(coder.encode([clip]))
    assert relative(np.concatenate(list(coder.encode([clip[:, :1], clip[:, 1:5], clip[:, 5:]])), axis=1), whole) <= 1e-5
    pixels = next(coder.decode([whole]))
    assert pixels.shape[1] == 13
    assert relative(np.concatenate(list(coder.decode(np.split(whole, 4, axis=1))), axis=1), pixels) <= 1e-5


def test_import_and_export_are_the_identity(pair):
    tensors = published(pair.params, sources(pair.config))
    assert tensors.keys() == pair.tensors.keys()
    assert all(np.array_equal(x, pair.tensors[name]) for name, x in tensors.items())
    back = settings(pair.config, latent_stats(pair.theirs.config, pair.config))
    theirs = {key: list(x) if isinstance(x, tuple) else x for key, x in pair.theirs.config.items() if key[0] != "_"}
    assert {key: value for key, value in back.items() if key[0] != "_"} == theirs


def test_published_sizes_are_known():
    assert vae_config({}).strides == Compression(4, 16, 64)
    with pytest.raises(UserError, match="attn_scales"):
        vae_config({"attn_scales": [0.5]})
    with pytest.raises(UserError, match="scale_factor_spatial=16 is not supported: its levels make it 8"):
        vae_config({"scale_factor_spatial": 16})
