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
from export.estimate.clip import Plan
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.generate.stream import ClipStream
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.text.encoder import pad
from tests import tiny
from tests.export.test_run import MODEL, VAE, close, silent
from tests.export.test_steps import loop

LAYOUT = (("lcha", 1), ("ssa", 1), ("chunked", 1), ("full", 1))
# The second step reuses two outputs of the first and leaves a module out. Across chunks four outputs are reused as
# well, one of them at the next step again.
WITHIN, ACROSS = ("........", "b..-.b.."), ("p..p....", "b.-.pp..")
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


FIRST_STEPS, NEXT_STEPS = (["first_step_1", "first_step_2"], ["next_step_1", "next_step_2"])
FUNCTIONS = {
    (): [],
    WITHIN: FIRST_STEPS + NEXT_STEPS,
    ACROSS: [*FIRST_STEPS, *NEXT_STEPS, "next_step_3", "next_step_4"],
}


@pytest.mark.parametrize("table", FUNCTIONS, ids=["plain", "within chunks", "across chunks"])
def test_the_loop_of_functions_equals_launch_samples_stream(table, generator, tmp_path, monkeypatch):
    monkeypatch.setattr(generator.denoiser, "sampling", Sampling(steps=2, guidance=1.0, reuse=table))
    functions = list(parts.dit_parts(generator, Settings(tiles=(1,), steps=2, stream=True), tmp_path))
    assert [(part.name, part.function) for part in functions] == [
        ("dit", name) for name in ("first", "next", *FUNCTIONS[table])
    ]
    for part in functions:
        close(part.module, part)
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
@pytest.mark.parametrize(
    ("stream", "table"), [(True, ()), (False, ()), (True, ACROSS)], ids=["stream", "whole clip", "table"]
)
def test_packages_and_assets_draw_the_clip_that_jax_streams(stream, table, causal, tmp_path):
    record = json.loads((causal / "run.json").read_text())
    record["sampling"] = {"steps": 2, "guidance": 1.0, "reuse": table}
    (causal / "run.json").write_text(json.dumps(record))
    settings = Settings(backends=("coreml", "coreai"), tiles=(1,), stream=stream)
    report = export_run(causal, tmp_path / "out", settings, silent)
    [clip] = report["clips"]
    assert clip["psnr"] > 40 and clip["assets_psnr"] > 40
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    for records, figures in ((manifest["packages"], report["packages"]), (manifest["assets"], report["assets"])):
        [record] = (each for each in records if each["name"] == "dit")
        assert sorted(record["functions"]) == sorted(["first", "next", *FUNCTIONS[table]] if stream else ["main"])
        [row] = (each for each in figures if each["name"] == "dit")
        # So few random weights err a little more than the limit for trained ones.
        assert all(each["relative_error"] < 6e-3 for each in row["functions"].values())


def test_what_cannot_stream_is_refused_before_anything_is_written(causal, tmp_path):
    record = json.loads((causal / "run.json").read_text())
    other = tmp_path / "run"
    other.mkdir()
    whole = {"config": record["config"] | {"model": record["config"]["model"] | {"causal": False}}}
    (other / "run.json").write_text(json.dumps(record | whole))
    with pytest.raises(UserError, match="cannot stream"):
        export_run(other, tmp_path / "out", Settings(stream=True), silent)
    assert not (tmp_path / "out").exists()


def test_the_estimate_counts_each_step_of_the_first_frame_and_of_later_chunks(generator):
    """Of a clip of five latent frames there are four chunks behind the first: two that keep outputs, two that reuse."""
    plan = Plan(generator.denoiser.config, decoder="micro", clip="9x16x16", steps=2, tiles=1, table=ACROSS)
    plain, calls = dataclasses.replace(plan, table=()).denoisers(), plan.denoisers()
    assert {name: call.times for name, call in calls.items()} == {
        **{"dit": 4, "dit_first": 1, "dit_first_step_1": 1, "dit_first_step_2": 1},
        **{f"dit_next_step_{i}": 2 for i in (1, 2, 3, 4)},
    }
    flops = {name: sum(op.flops for op in call.ops) for name, call in calls.items()}
    assert flops["dit"] == sum(op.flops for op in plain["dit"].ops) == flops["dit_next_step_1"]
    assert flops["dit_next_step_4"] < flops["dit_next_step_2"] < flops["dit"] > flops["dit_next_step_3"]
