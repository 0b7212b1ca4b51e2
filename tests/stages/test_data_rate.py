"""Networks that know seconds follow the frame rate of their data, and of the clips that are generated."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import make_requests
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.train.run import write_run
from tests import tiny

MODEL = dataclasses.replace(tiny.DIT, width=48, heads=2, head_dim=24, ffn=64, rope_scale=(4 / 25, 8.0, 8.0))


def at_rate(folder: Path, fps: float) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"source": {"fps": fps}}))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return at_rate(tiny.latents(tmp_path_factory.mktemp("data") / "latents"), 12.5)


def seconds(stage_or_run) -> float:
    """Seconds between the latent frames of the network that runs."""
    return stage_or_run.denoiser.network.config.rope_scale[0]


def test_positions_and_sampling_follow_the_data(data, tmp_path):
    config = tiny.dit_config(data, model=MODEL)
    stage = DitStage(config)
    assert seconds(stage) == 4 / 12.5 and stage.sampling["frame_rate"] == 12.5
    assert stage.config.model.rope_scale == (4 / 12.5, 8.0, 8.0)  # of run.json
    angles = [np.asarray(each.denoiser.velocity(*inputs(each))) for each in (stage, DitStage(unknown(config)))]
    assert np.abs(angles[0] - angles[1]).max() > 1e-4
    student = RecoverStage(RecoverTraining(**vars(config) | {"stage": "recover", "teacher_model": MODEL}))
    assert student.teacher.network.config.rope_scale[0] == 4 / 12.5 == seconds(student)


def unknown(config):
    """The config with data that are not there, and so know no rate."""
    return dataclasses.replace(config, data="nowhere")


def inputs(stage: DitStage):
    shapes = stage.denoiser.input_shapes(1)
    rng = np.random.default_rng(0)
    x, text = (jnp.asarray(rng.normal(size=shapes[name].shape), jnp.float32) for name in ("latents", "text"))
    leaves, tree = jax.tree.flatten(stage.denoiser.parameter_shapes)
    params = tree.unflatten([jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32) for leaf in leaves])
    return params, x, jnp.full(1, 0.5), text, jnp.ones(shapes["text_mask"].shape, bool)


def test_other_networks_and_unknown_rates_stay_as_they_are(data):
    assert DitStage(tiny.dit_config(data)).config.model == tiny.DIT
    assert seconds(DitStage(unknown(tiny.dit_config(data, model=MODEL)))) == 4 / 25


def test_data_of_two_rates_are_refused_where_positions_follow_them(data, tmp_path):
    both = f"{data},{at_rate(tiny.latents(tmp_path / 'latents'), 30.0)}"
    DitStage(tiny.dit_config(Path(both)))
    with pytest.raises(UserError, match=r"hold clips of \[12.5, 30.0\] frames/s: prepare all with one --fps"):
        DitStage(tiny.dit_config(Path(both), model=MODEL))


def test_clips_are_generated_at_the_rate_that_is_asked_for(data, tmp_path):
    config = tiny.dit_config(data, model=MODEL, text_tokens=16)
    run = tiny.dit_run(tmp_path / "run", config)
    record = json.loads((run / "run.json").read_text())
    sampling = {"frame_rate": 12.5}
    write_run(run, "dit", record["config"] | {"model": dataclasses.asdict(DitStage(config).config.model)}, {}, sampling)
    native, faster = Generator.load(run), Generator.load(run, fps=20.0)
    assert (native.frame_rate, seconds(native)) == (12.5, 4 / 12.5)
    assert (faster.frame_rate, seconds(faster)) == (20, 4 / 20)
    assert seconds(Run.open(run)) == 4 / 12.5
    latents = [
        np.asarray(each.latents(make_requests(["a red circle"], 0, []), each.sample_config(steps=1)))
        for each in (native, faster)
    ]
    assert np.abs(latents[0] - latents[1]).max() > 1e-4


@pytest.mark.parametrize(("clip", "fps", "unit"), [("9x32x32", 0.2, "seconds"), ("1x32x2112", 25, "pixel columns")])
def test_clips_beyond_the_positions_are_refused(clip, fps, unit):
    with pytest.raises(UserError, match=f"{unit} each are beyond the"):
        DitStage(dataclasses.replace(tiny.dit_config(Path("nowhere"), model=MODEL), clip=clip).at_rate(fps))
