"""The original releases' names become diffusers' names, as its own conversion has them."""

import re
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop import ltx_transformer, ltx_vae
from mobile_video_jax.interop.ltx_single_file import BLOCKS, RENAMED, STATISTICS, VAES, open_single_file, renamed


def original_name(name: str, release: str) -> str:
    """The release's name of a tensor of diffusers' VAE."""
    for ours, theirs in STATISTICS.items():
        if name == theirs:
            return f"per_channel_statistics.{ours}"
    name = name.replace("resnets", "res_blocks").replace("conv_shortcut.conv", "conv_shortcut")
    name = name.replace("norm3", "norm3.norm")
    name = re.sub(r"^decoder\.(time_embedder|scale_shift_table)", r"decoder.last_\1", name)
    for half, blocks in BLOCKS[release].items():
        side = half.partition(".")[0]
        for i, block in sorted(enumerate(blocks), key=lambda pair: -len(pair[1])):
            if name.startswith(f"{side}.{block}."):
                return f"{half}.{i}.{name.removeprefix(f'{side}.{block}.')}"
    return name


def released(path: Any, release: str, depth: int = 2) -> dict[str, set[str]]:
    """Writes a release with small tensors; returns diffusers' names of each network's tensors."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    with torch.device("meta"):
        vae = diffusers.AutoencoderKLLTXVideo(**VAES[release])
        transformer = diffusers.LTXVideoTransformer3DModel(num_layers=depth)
    originals = {theirs: ours for ours, theirs in RENAMED.items()}
    tensors = {f"vae.{original_name(name, release)}": x.shape for name, x in vae.state_dict().items()}
    tensors["vae.per_channel_statistics.mean-of-stds"] = (1,)
    for name, x in transformer.state_dict().items():
        tensors[f"model.diffusion_model.{renamed(name, originals)}"] = x.shape
    whole = ("vae.encoder.conv_out.conv.weight", "model.diffusion_model.patchify_proj.bias")
    small = {name: shape if name in whole else (1,) * len(shape) for name, shape in tensors.items()}
    save_file({name: np.zeros(shape, np.float16) for name, shape in small.items()}, path)
    return {"vae": set(vae.state_dict()), "transformer": set(transformer.state_dict())}


@pytest.mark.parametrize("release", VAES)
def test_names_equal_diffusers_at_the_published_sizes(tmp_path, release):
    names = released(tmp_path / "ltx.safetensors", release)
    transformer, vae = open_single_file(tmp_path / "ltx.safetensors")
    assert vae.settings == VAES[release]
    assert set(vae.tensors) == names["vae"] and set(transformer.tensors) == names["transformer"]
    config = ltx_transformer.dit_config(transformer.settings)
    assert (config.depth, config.width, config.heads) == (2, 2048, 32)
    sources = {source.name for source in ltx_vae.sources(ltx_vae.vae_config(vae.settings)).values()}
    assert sources | set(ltx_vae.STATISTICS) == names["vae"]


def test_the_same_names_as_diffusers_conversion(tmp_path):
    convert = pytest.importorskip("diffusers.loaders.single_file_utils").convert_ltx_vae_checkpoint_to_diffusers
    for release in VAES:
        released(tmp_path / "ltx.safetensors", release)
        ours = open_single_file(tmp_path / "ltx.safetensors")[1].tensors
        theirs = convert({f"vae.{original_name(name, release)}": FakeTensor(x.get_shape()) for name, x in ours.items()})
        assert set(theirs) == set(ours), release


class FakeTensor:
    def __init__(self, shape: list[int]):
        self.shape = shape


def test_a_block_too_many_is_refused(tmp_path):
    tensors = {"model.diffusion_model.proj_in.bias": np.zeros(64, np.float32)}
    tensors |= {"vae.decoder.up_blocks.30.conv.weight": np.zeros(3, np.float32)}
    save_file(tensors, tmp_path / "ltx.safetensors")
    with pytest.raises(UserError, match="vae.decoder.up_blocks.30.conv.weight is no block of release 0.9.0"):
        open_single_file(tmp_path / "ltx.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="name a release of LTX-Video"):
        open_single_file(tmp_path / "other.safetensors")
