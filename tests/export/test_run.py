"""A run becomes a folder of packages that agree with JAX and with each other."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.app import manifest as manifests
from export.app import parts
from export.app.assets import AssetApp, installed_backends
from export.app.folder import export_run
from export.app.golden_clip import clip_tensors
from export.app.runtime import App
from export.app.settings import Settings, distillation_warnings, own_steps
from export.app.verify import failures, lost_tiles, verify_record
from export.coreai.verify import verify_asset
from export.coreml.package import digests
from export.mil.verify import verify_package
from export.part import Part
from export.phone.vae import PhoneDecoder
from export.pytorch import dit as torch_dit
from export.pytorch.load import load_params
from export.pytorch.vae import Decoder
from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.text.encoder_name import EncoderName
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
    settings = Settings(clips=("5x8x12",), backends=("coreml", "coreai"), author="A. Author")
    export_run(runs / "vae", out, settings, silent)
    return out, json.loads((out / "manifest.json").read_text())


def test_a_vaes_packages_agree_with_jax(exported):
    out, manifest = exported
    assert [package["name"] for package in manifest["packages"]] == ["vae_first", "vae_next"]
    for package in manifest["packages"]:
        check = verify_package(out / package["file"], out / package["functions"]["main"]["golden"])
        assert 50 < package["psnr"] == min(agreement.psnr for agreement in check.outputs.values())
        assert package["sha256"] == digests(out / package["file"])
    first, following = (package["functions"]["main"] for package in manifest["packages"])
    assert first["outputs"]["video"]["shape"] == [1, 3, 8, 12]
    assert following["outputs"]["video"]["shape"] == [2, 3, 8, 12]
    states = {name.removeprefix("kept_"): x for name, x in first["outputs"].items() if name != "video"}
    assert states == {n.removeprefix("past_"): x for n, x in following["inputs"].items() if n != "latents"}


def test_the_decoder_is_one_asset_whose_entry_points_share_weights(exported):
    out, manifest = exported
    [asset] = manifest["assets"]
    assert (asset["name"], asset["file"], asset["executed"]) == ("vae", "vae.aimodel", "float16")
    for name, function in asset["functions"].items():
        assert function["golden"] == f"golden/vae_{name}.npz" and function["part"] == f"vae_{name}"
        check = verify_asset(out / "vae.aimodel", out / function["golden"], name)
        assert 50 < asset["psnr"] <= check.summary()["psnr"] and check.summary()["relative_error"] < 4e-3
    assert set(asset["functions"]) == {"first", "next"}
    stored = load_file(out / "vae.safetensors")
    largest = max(stored.values(), key=torch.numel).half().numpy().tobytes()
    assert asset["bytes"] < 1.3 * sum(package["bytes"] for package in manifest["packages"]) and largest
    app, chunks = AssetApp(out, "main"), App(out, "main")
    latents = np.random.default_rng(0).standard_normal((1, 6, 1, 18), np.float32)
    difference = app._decode(latents).astype(int) - chunks._decode(latents).astype(int)
    app.close()
    assert np.abs(difference).max() <= 2


def test_a_damaged_asset_is_refused_and_a_changed_weight_fails(exported, tmp_path):
    asset, golden = Path(shutil.copytree(exported[0] / "vae.aimodel", tmp_path / "vae.aimodel")), exported[0] / "golden"
    program = asset / "main.mlirb"
    whole, weight = program.read_bytes(), load_file(exported[0] / "vae.safetensors")["stem.weight"]
    stored = weight.half().numpy().tobytes()
    assert whole.count(stored) == 1
    program.write_bytes(whole.replace(stored, (-weight).half().numpy().tobytes()))
    with pytest.raises(UserError, match="vae.aimodel is damaged: main.mlirb is not what was written"):
        verify_asset(asset, golden / "vae_first.npz", "first")
    (asset / "main.hash").write_bytes(hashlib.sha256(program.read_bytes()).digest())
    assert not verify_asset(asset, golden / "vae_first.npz", "first").summary()["passed"]
    with pytest.raises(UserError, match="has the functions first, next: name one with --function"):
        verify_asset(asset, golden / "vae_first.npz")
    metadata = asset / "metadata.json"
    assert json.loads(metadata.read_text())["author"] == "A. Author"
    metadata.write_text(metadata.read_text().replace('"2.0"', '"9.0"'))
    with pytest.raises(
        UserError, match='cannot be loaded by coreai-core .*"9.0" is not supported.*export the run again'
    ):
        verify_asset(asset, golden / "vae_first.npz", "first")


def test_a_backend_that_is_not_installed_is_named(capsys):
    with pytest.raises(
        UserError, match=r"--backend=coreai takes packages that are not installed: pip install -e '.\[export\]'"
    ):
        installed_backends(["coreai"], core_ai=False)
    assert installed_backends([], core_ai=False) == ("coreml",) and installed_backends([], core_ai=True) == (
        "coreml",
        "coreai",
    )
    assert "Core ML alone is written" in capsys.readouterr().err
    with pytest.raises(UserError, match="--backend=onnx is unknown: use coreml,coreai, or one of them"):
        Settings(backends=("onnx",))


def test_the_manifest_tells_what_an_app_needs(exported):
    manifest = exported[1]
    assert manifest["latents"] == {"mean": [0.1] * 6, "std": [0.5] * 6}
    assert manifest["clips"] == [{"clip": "5x8x12", "function": "main", "latent_shape": [3, 2, 3, 6]}]
    assert manifest["verification"]["clips"] == []  # a decoder alone draws none
    assert manifest["commit"] and manifest["versions"]["coremltools"] == "9.0"


def test_the_report_holds_what_was_measured(exported):
    out, manifest = exported
    report = json.loads((out / "report.json").read_text())
    rows = {row["name"]: row for row in report["packages"]}
    for package in manifest["packages"]:
        row = rows[package["name"]]
        assert {key: row[key] for key in package.keys() & row.keys() - {"functions"}}.items() <= package.items()
        # So few random weights err a little more than the limit for trained ones.
        assert row["relative_error"] < 4e-3 and row["functions"]["main"]["operations"] > 50
        assert 0 < row["functions"]["main"]["peak_live_bytes"] < 20_000
    assert report["passed"] == ("All checks passed" in (out / "report.html").read_text())


def test_steps_that_a_run_was_not_made_for_are_told():
    distilled = Sampling(steps=3, guidance=1.0)
    assert own_steps(distilled) == 3 and own_steps(Sampling()) == 4
    assert distillation_warnings(distilled, 3) == []
    assert "2 steps of a model that was made for 3" in distillation_warnings(distilled, 2)[0]
    assert "4 unguided steps of a model that was not distilled" in distillation_warnings(Sampling(), 4)[0]


def test_a_package_that_differs_is_named_with_its_figure(exported, tmp_path):
    out = Path(shutil.copytree(exported[0], tmp_path / "out"))
    record = exported[1]["packages"][0]
    golden = out / record["functions"]["main"]["golden"]
    with np.load(golden) as arrays:
        np.savez(golden, **dict(arrays) | {"output:video": 1.05 * arrays["output:video"]})
    assert re.match(r"vae_first: relative error 4.\de-02 is above 0.002", *failures(verify_record(out, record)))
    functions = {"main": {"first_warnings": ["add x_1: 3 values overflow fp16, the largest is 70000"]}}
    blind = {"name": "dit", "weights": "int8", "relative_error": None, "psnr": None, "functions": functions}
    expected = "dit: PSNR not finite dB is below 35 dB, first in add x_1: 3 values overflow fp16, the largest is 70000"
    assert failures(blind) == [expected]
    rows = [{"name": name, "functions": {"main": {"ffn_products": {0: 8}}}} for name in ("dit_0", "dit_1")]
    assert lost_tiles(rows, [4, 2]) == ["dit_1: block 1 has 8 products in its FFN, 2 tiles make 4"]
    assert "4 tiles make 20" in lost_tiles(rows, [4, 2], cut_inputs=True)[0]


def test_the_weights_are_those_of_the_mirror(exported):
    mirror = Decoder(VAE)
    mirror.load_state_dict(load_file(exported[0] / "vae.safetensors"))


def close(module: torch.nn.Module, part: Part) -> None:
    outputs = module(*(torch.tensor(x) for x in part.inputs.values()))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for values, expected in zip(outputs, part.outputs.values(), strict=True):
        np.testing.assert_allclose(values.detach(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def generator(runs: Path) -> Generator:
    return Generator.load(runs / "dit")


@pytest.fixture(scope="module")
def text(generator, tmp_path_factory) -> Part:
    source, folder = EncoderName("minilm"), tmp_path_factory.mktemp("text")
    return parts.text_part(generator.text_encoder, source, Settings(), 12, folder)


def test_the_text_encoder_equals_jax(text):
    assert text.inputs["ids"].dtype == np.int32 and text.outputs["text"].shape == (1, 384, 1, 12)
    close(text.module, text)


@pytest.fixture(scope="module")
def chunks(generator, tmp_path_factory) -> list[Part]:
    settings = Settings(tiles=(2, 1), steps=4, chunk_megabytes=0.15)
    return list(parts.dit_parts(generator, settings, tmp_path_factory.mktemp("chunks")))


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


class TorchApp(App):
    """An app whose packages are the PyTorch modules that they are made from."""

    modules: dict[str, torch.nn.Module]

    def _call(self, name, features, function=""):
        module = self.modules[name]
        outputs = module(*(torch.tensor(features[feature]) for feature in module.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {feature: x.detach().numpy() for feature, x in zip(module.outputs, outputs, strict=True)}


@pytest.mark.parametrize("solver", ["euler", "renoise"])
def test_an_apps_clip_is_jaxs(solver, chunks, text, generator, tmp_path, monkeypatch):
    monkeypatch.setattr(generator.denoiser, "sampling", Sampling(solver=solver))
    decoder = Decoder(generator.vae.vae.config)
    load_params(decoder, generator.vae.params["decoder"])
    modules = {part.name: part.module for part in (text, *chunks)}
    modules |= {f"vae_{name}": PhoneDecoder(decoder, (4, 4), starts=name == "first") for name in ("first", "next")}
    manifest = manifests.of_transformer([generator], 4)
    packages = [{"name": name, "functions": {"main": {}}} for name in modules]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"packages": packages}))
    generator.text_encoder.tokenizer.save(str(tmp_path / "tokenizer.json"))
    app = TorchApp(tmp_path, "main")
    app.modules = modules
    long = app.tokens("a red circle " * 9)
    assert (
        long["text_mask"].all() and long["ids"][0, -1] == text.inputs["ids"][text.inputs["text_mask"][:, 0, 0] > 0][-1]
    )
    expected = clip_tensors(generator, "a red circle", 4)
    with torch.inference_mode():
        noises = {name: expected[name] for name in ("noise", "fresh_noise") if name in expected}
        generated = app.generate("a red circle", progress=silent, **noises)
    np.testing.assert_allclose(generated["latents"], expected["latents"], atol=1e-5 * np.abs(expected["latents"]).max())
    assert generated["video"].shape == expected["video"].shape == (9, 32, 32, 3)
    np.testing.assert_allclose(generated["video"].astype(int), expected["video"].astype(int), atol=1)


def test_bad_input_is_refused(runs, exported, tmp_path):
    with pytest.raises(UserError, match="exported is not empty: name a new folder with --out"):
        export_run(runs / "vae", exported[0], Settings(), silent)
    with pytest.raises(UserError, match="--tiles names 3 numbers: use one, or 2, one for each block"):
        export_run(runs / "dit", tmp_path / "new", Settings(tiles=(1, 2, 3)), silent)
    shutil.copytree(runs / "dit", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["config"]["model"]["blocks"] = [[4, 4, 80], [4, 4, 80, 2]]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="block 1, .*, is of an unknown kind"):
        export_run(tmp_path / "run", tmp_path / "new", Settings(), silent)
    (runs / "vae/latents.json").rename(tmp_path / "latents.json")
    with pytest.raises(UserError, match="has no latent statistics"):
        export_run(runs / "vae", tmp_path / "new", Settings(), silent)
    (tmp_path / "latents.json").rename(runs / "vae/latents.json")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--tiles=four", "--tiles[0]=four: use a whole number from 1 to 1,048,576"),
        ("--out=gs://bucket/new", "gs://bucket/new: name a path of this machine here"),
        ("--model=nowhere", "flag --model=nowhere: does not exist: name another path"),
    ],
)
def test_the_command_refuses_bad_flags_before_it_writes(runs, tmp_path, argument, message):
    done = commands.run("export.run", f"--model={runs}/vae", f"--out={tmp_path}/new", argument, folder=tmp_path)
    assert done == (2, "", f"error: {message}\n")
    assert not list(tmp_path.iterdir())


ROW = {"name": "dit", "relative_error": 3e-3, "psnr": 34.0, "bytes": 5}


def failing(model: str, out: str) -> None:
    """The command, where a package fails."""
    from export import run
    from export.app import folder

    failures = ["dit: PSNR 34.0 dB is below 35 dB"]
    report = {"packages": [ROW], "assets": [], "clips": [], "passed": False, "warnings": [], "failures": failures}
    folder.export_run = lambda *args: report
    sys.argv[1:] = [f"--model={model}", f"--out={out}"]
    cli.run(run.main)


def test_what_fails_is_status_1(runs, tmp_path):
    done = commands.call(failing, str(runs / "vae"), str(tmp_path), devices=1)
    assert done.status == 1 and done.err == "failed: dit: PSNR 34.0 dB is below 35 dB\n"
    assert json.loads(done.out.splitlines()[-1])["packages"] == [ROW]


@pytest.mark.slow
def test_the_command_exports_a_whole_run(runs, tmp_path):
    out = tmp_path / "out"
    arguments = (
        f"--model={runs}/dit",
        f"--out={out}",
        "--clip=9x32x32",
        "--clip=5x32x32",
        "--weights=int8",
        "--tiles=3,1",
    )
    done = commands.run("export.run", *arguments, timeout=500)
    assert done.status == 0, done.err
    summary = json.loads(done.out.splitlines()[-1])
    assert [package["name"] for package in summary["packages"]] == ["text", "dit", "vae_first", "vae_next"]
    assert [clip["clip"] for clip in summary["clips"]] == ["9x32x32", "5x32x32"]
    assert all(clip["psnr"] > 35 and clip["fp16_psnr"] > 50 for clip in summary["clips"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest["packages"][1]["functions"]) == ["clip_9x32x32", "clip_5x32x32"]
    names = {path.name for path in out.iterdir()}
    assert {"tokenizer.json", "report.html", "report.json"} <= names and "fp16" not in names
