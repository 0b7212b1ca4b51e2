"""Streams on the phone: functions for first and next chunk, whose loop equals launch.sample --stream."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from export.app import parts
from export.app.folder import export_run
from export.app.golden_clip import clip_tensors
from export.app.settings import Settings
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.generate.stream import ClipStream
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.text.encoder import pad
from tests import tiny
from tests.export.test_run import MODEL, VAE, silent
from tests.export.test_steps import loop

LAYOUT = (("lcha", 1), ("ssa", 1), ("chunked", 1), ("full", 1))
CAUSAL = dataclasses.replace(MODEL, depth=4, layout=LAYOUT, causal=True, chunk_frames=1, attention_window=2)


@pytest.fixture(scope="module")
def causal(tmp_path_factory) -> Path:
    """A causal run of two steps without guidance."""
    root = tmp_path_factory.mktemp("causal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "VAE", VAE)
        patch.setattr(tiny, "COMPRESSION", VAE.compression)
        config = tiny.dit_config(root, clip="9x16x16", compression="t2_s4_c6", model=CAUSAL)
        run = tiny.dit_run(root / "run", config)
    record = json.loads((run / "run.json").read_text())
    record["sampling"] = {"steps": 2, "guidance": 1.0}
    (run / "run.json").write_text(json.dumps(record))
    return run


@pytest.fixture(scope="module")
def generator(causal) -> Generator:
    return Generator.load(causal)


def test_the_loop_of_functions_equals_launch_samples_stream(generator, tmp_path):
    functions = list(parts.dit_parts(generator, Settings(tiles=(1,), steps=2, stream=True), tmp_path))
    assert [(part.name, part.function) for part in functions] == [("dit", "first"), ("dit", "next")]
    app = loop(generator, functions, tmp_path, steps=2, stream=True)
    requests = [Request("a red circle", 5)]
    stream = ClipStream(generator, generator.sample_config())
    row = lambda x: np.asarray(x).reshape(1, -1, 6).swapaxes(1, 2)[:, :, None]
    expected = [row(x) for x in stream.latents(requests, 4)]
    noise = np.concatenate([row(x) for x in itertools.islice(stream._noise(requests), 5)], axis=3)
    text, mask = pad(generator.text_encoder.encode(["a red circle"]), 12)
    states = {"text": text.swapaxes(1, 2)[:, :, None], "text_mask": mask.astype(np.float32)[:, None, None]}
    for latents, wanted in zip(app._chunks(states, noise, None, silent), expected, strict=True):
        np.testing.assert_allclose(latents, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("solver", ["euler", pytest.param("renoise", marks=pytest.mark.slow)])
def test_the_golden_clip_is_the_stream_from_its_noise(solver, generator, tmp_path, monkeypatch):
    monkeypatch.setattr(generator.denoiser, "sampling", Sampling(steps=2, guidance=1.0, solver=solver))
    functions = list(parts.dit_parts(generator, Settings(tiles=(1,), steps=2, stream=True), tmp_path))
    app = loop(generator, functions, tmp_path, steps=2, stream=True)
    expected = clip_tensors(generator, "a red circle", 2, stream=True)
    text, mask = pad(generator.text_encoder.encode(["a red circle"]), 12)
    states = {"text": text.swapaxes(1, 2)[:, :, None], "text_mask": mask.astype(np.float32)[:, None, None]}
    latents = app._denoise(states, expected["noise"], expected.get("fresh_noise"), silent)
    np.testing.assert_allclose(latents, expected["latents"], atol=1e-4 * np.abs(expected["latents"]).max())
    assert ("fresh_noise" in expected) == (solver == "renoise")


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole clip"])
def test_packages_and_assets_draw_the_clip_that_jax_streams(stream, causal, tmp_path):
    settings = Settings(backends=("coreml", "coreai"), tiles=(1,), stream=stream)
    report = export_run(causal, tmp_path / "out", settings, silent)
    [clip] = report["clips"]
    assert clip["psnr"] > 40 and clip["assets_psnr"] > 40
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    for records, figures in ((manifest["packages"], report["packages"]), (manifest["assets"], report["assets"])):
        [record] = (each for each in records if each["name"] == "dit")
        assert sorted(record["functions"]) == (["first", "next"] if stream else ["main"])
        [row] = (each for each in figures if each["name"] == "dit")
        # So few random weights err a little more than the limit for trained ones.
        assert all(each["relative_error"] < 6e-3 for each in row["functions"].values())


def test_what_cannot_stream_is_refused_before_anything_is_written(causal, tmp_path):
    record = json.loads((causal / "run.json").read_text())
    other = tmp_path / "run"
    other.mkdir()
    for changes, message in (
        ({"config": record["config"] | {"model": record["config"]["model"] | {"causal": False}}}, "cannot stream"),
        ({"sampling": {"steps": 2, "guidance": 1.0, "reuse": ["." * 8] * 2}}, "has a reuse table"),
    ):
        (other / "run.json").write_text(json.dumps(record | changes))
        with pytest.raises(UserError, match=message):
            export_run(other, tmp_path / "out", Settings(stream=True), silent)
    assert not (tmp_path / "out").exists()
