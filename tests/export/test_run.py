"""A run becomes a folder of packages that agree with JAX and with each other."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export import parts, run, torch_dit, torch_text
from export.folder import Settings, export_run
from export.form import PHONE
from export.mil.check import check_package
from export.package import Part, digests
from export.torch_vae import Decoder
from launch import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.nn.embed import time_features
from mobile_video_jax.stages.generate import Generator
from mobile_video_jax.stages.sampling import SampleConfig, sample_latents
from mobile_video_jax.vae.config import VaeConfig
from tests import commands, tiny

VAE = VaeConfig("t2_s4_c6", (6, 8), (1, 1), (6, 8), (1, 1), head_dim=6)
MODEL = dataclasses.replace(tiny.DIT, width=48, depth=2, heads=4, head_dim=12, ffn=80)


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The transformer's run dit, and the run vae of a smaller VAE, whose packages are made sooner."""
    root = tmp_path_factory.mktemp("runs")
    tiny.dit_run(root / "dit", tiny.dit_config(root, model=MODEL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "VAE", VAE)
        tiny.vae_run(root / "vae")
    return root


@pytest.fixture(scope="module")
def exported(runs: Path) -> tuple[Path, dict]:
    """The VAE's run, exported."""
    out = runs / "exported"
    return out, export_run(runs / "vae", out, Settings(clip="5x8x12"), silent)


def test_a_vaes_packages_agree_with_jax(exported):
    out, manifest = exported
    assert [package["name"] for package in manifest["packages"]] == ["vae_first", "vae_next"]
    for package in manifest["packages"]:
        check = check_package(out / package["file"], out / package["golden"])
        assert min(agreement.psnr for agreement in check.outputs.values()) > 50
        assert package["sha256"] == digests(out / package["file"])
    first, following = manifest["packages"]
    assert first["outputs"]["video"]["shape"] == [1, 3, 8, 12]
    assert following["outputs"]["video"]["shape"] == [2, 3, 8, 12]
    kept = {name.removeprefix("kept_"): x for name, x in first["outputs"].items() if name != "video"}
    assert kept == {n.removeprefix("past_"): x for n, x in following["inputs"].items() if n != "latents"}


def test_the_manifest_tells_what_an_app_needs(exported):
    out, manifest = exported
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert manifest["latents"] == {"mean": [0.1] * 6, "std": [0.5] * 6}
    assert (manifest["clip"], manifest["latent_shape"]) == ("5x8x12", [3, 2, 3, 6])
    assert manifest["commit"] and manifest["versions"]["coremltools"] == "9.0"


def test_the_weights_are_those_of_the_mirror(exported):
    mirror = Decoder(VAE)
    mirror.load_state_dict(load_file(exported[0] / "vae.safetensors"))


def close(module: torch.nn.Module, part: Part) -> None:
    found = module(*(torch.tensor(x) for x in part.inputs.values()))
    found = found if isinstance(found, tuple) else (found,)
    for values, expected in zip(found, part.outputs.values(), strict=True):
        np.testing.assert_allclose(values.detach(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def generator(runs: Path) -> Generator:
    return Generator.load(runs / "dit")


def test_the_text_encoder_equals_jax(generator, tmp_path):
    part = parts.text_part(generator.text_encoder, "minilm", 12, tmp_path)
    assert part.inputs["ids"].dtype == np.int32 and part.outputs["text"].shape == (1, 384, 1, 12)
    close(part.module, part)


@pytest.fixture(scope="module")
def chunks(generator, tmp_path_factory) -> list[Part]:
    return list(parts.dit_parts(generator, PHONE, (2, 1), 4, 150_000, tmp_path_factory.mktemp("chunks")))


def test_a_large_transformer_is_cut_into_chunks_that_equal_jax(chunks):
    assert [chunk.name for chunk in chunks] == ["dit_0", "dit_1"]
    assert list(chunks[1].inputs) == ["hidden_1", "modulation", "projected_text", "text_mask", "embedding"]
    for chunk in chunks:
        close(chunk.module, chunk)


def test_chunks_are_few_and_even_and_within_the_limit():
    dit = torch_dit.Dit(dataclasses.replace(MODEL, depth=8), (3, 4, 4, 6), 384)
    block, whole = (2 * sum(x.numel() for x in part.parameters()) for part in (dit.blocks[3], dit))
    assert parts.chunk_ends(dit, whole) == [8]
    # Filled to the limit one after the other they would end at 7; what stands before the blocks weighs as 1.6 of them.
    assert parts.chunk_ends(dit, whole - block // 2) == [3, 8]
    with pytest.raises(UserError, match=r"block 0 takes 0.1 MB in fp16: set --chunk_megabytes=1 or more"):
        parts.chunk_ends(dit, block)


def test_four_steps_through_the_chunks_are_jaxs_sample(chunks, generator):
    given = {name: torch.tensor(x) for name, x in chunks[0].inputs.items()}
    times = np.asarray(time_grid(4, shift=1.0))
    features = torch.tensor(np.asarray(time_features(jnp.asarray(times[:-1]), MODEL.time_features)))
    for i in range(4):
        given["time_features"] = features[i][None, :, None, None]
        for chunk in chunks:
            found = chunk.module(*(given[name] for name in chunk.inputs))
            given |= zip(chunk.outputs, found if isinstance(found, tuple) else (found,), strict=True)
        given["latents"] = given["latents"] + float(times[i + 1] - times[i]) * given["velocity"]
    noise, text = (jnp.asarray(chunks[0].inputs[name][:, :, 0].swapaxes(1, 2)) for name in ("latents", "text"))
    mask = jnp.asarray(chunks[0].inputs["text_mask"][:, 0, 0] > 0)
    draw = jax.jit(partial(sample_latents, generator.stage.dit, SampleConfig(steps=4, guidance=1.0)))
    expected = np.asarray(draw(generator.params, noise.reshape(1, 3, 4, 4, 6), text, mask)).reshape(1, 48, 6)
    latents = given["latents"].detach()[:, :, 0].swapaxes(1, 2)
    np.testing.assert_allclose(latents, expected, atol=1e-5 * np.abs(expected).max())


def test_bad_input_is_refused(runs, exported, tmp_path):
    with pytest.raises(UserError, match="exported is not empty: name a new folder with --out"):
        export_run(runs / "vae", exported[0], Settings(), silent)
    with pytest.raises(UserError, match="--tiles names 3 numbers: use one, or 2, one for each block"):
        export_run(runs / "dit", tmp_path / "new", Settings(tiles=(1, 2, 3)), silent)
    with pytest.raises(
        UserError, match="text encoder t5:folder cannot be exported: use a run with minilm or clip:FOLDER"
    ):
        torch_text.load("t5:folder")
    (runs / "vae/latents.json").rename(tmp_path / "latents.json")
    with pytest.raises(UserError, match="has no latent statistics"):
        export_run(runs / "vae", tmp_path / "new", Settings(), silent)
    (tmp_path / "latents.json").rename(runs / "vae/latents.json")
    assert not (tmp_path / "new").exists()


def test_the_command_tells_bad_input_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [run.__file__, "--model=nowhere", "--out=new", "--tiles=four"])
    with pytest.raises(SystemExit, match="2"):
        cli.run(run.main)
    expected = "error: --tiles=four is no list of whole numbers: use --tiles=4, or 1 for none\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.slow
def test_the_command_exports_a_whole_run(runs, tmp_path):
    done = commands.run("export.run", f"--model={runs}/dit", f"--out={tmp_path}/out", "--weights=int8")
    assert done.status == 0, done.err
    summary = json.loads(done.out.splitlines()[-1])
    assert list(summary["packages"]) == ["text", "dit", "vae_first", "vae_next"]
    assert (tmp_path / "out/tokenizer.json").is_file()
    for name in summary["packages"]:
        check = check_package(tmp_path / f"out/{name}.mlpackage", tmp_path / f"out/golden/{name}.npz")
        assert min(agreement.psnr for agreement in check.outputs.values()) > 35
