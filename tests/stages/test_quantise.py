"""Quantisation: weights become palettes and stay so, all else is tuned, and the run goes on exactly."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.config import QuantiseTraining
from mobile_video_jax.stages.quantise import RECIPE, QuantiseStage, split
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.run import NAME
from tests import tiny

MODEL = DitConfig(width=32, depth=2, heads=2, head_dim=16, ffn=64, time_features=8, scan=True)
STEPS = 2


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> QuantiseTraining:
    root = tmp_path_factory.mktemp("quantise")
    data = tiny.latents(root / "latents")
    base = tiny.dit_run(root / "dit", tiny.dit_config(data, model=MODEL))
    record = json.loads((base / "run.json").read_text())
    (base / "run.json").write_text(json.dumps(record | {"sampling": {"steps": 4, "guidance": 1.0}}))
    optimizer = dataclasses.replace(tiny.OPTIMIZER, learning_rate=1e-4)
    shared = {"init_from": str(base), "steps": STEPS, "eval_every": STEPS, "optimizer": optimizer}
    plain = vars(tiny.dit_config(data, **shared)) | {"stage": "quantise"}
    return QuantiseTraining(**plain, bits=4.5)


@pytest.fixture(scope="module")
def quantised(config, tmp_path_factory) -> Run:
    run = tmp_path_factory.mktemp("quantised") / "run"
    for name in (NAME, RECIPE):  # as a run of other bits that was killed before its first checkpoint leaves them
        write_json(run / name, {"bits": {}})
    train(QuantiseStage.build(config), run)
    return Run.open(run)


def weights_of(run: Run) -> dict[str, np.ndarray]:
    return flatten_dict(jax.tree.map(np.asarray, run.sharded_params(make_mesh(MeshConfig()))), sep="/")


def test_a_run_is_left_whose_weights_are_palettes_and_whose_small_tensors_were_tuned(config, quantised):
    recipe = json.loads((quantised.path / RECIPE).read_text())
    assert 4 < recipe["mean_bits"] <= 4.5 and {4} < set(recipe["bits"].values()) <= {4, 6, 8, 16}
    before, after = weights_of(Run.open(config.init_from)), weights_of(quantised)
    for path, bits in recipe["bits"].items():
        assert len(np.unique(after[path])) <= 2**bits, path
    up = before["blocks/block/ffn/up/kernel"][1]
    assert 0 < np.abs(after["block_1/ffn/up/kernel"] - up).max() < 0.2 * np.abs(up).max()
    assert np.abs(after["block_1/ffn/up/bias"] - before["blocks/block/ffn/up/bias"][1]).max() > 1e-5
    assert quantised.denoiser.sampling.steps == 4 and quantised.denoiser.config.transformer.depth == 2
    last = read_metrics(quantised.path)[-1]
    assert 0 < last["velocity_kd"] < 0.1 and 0 < last["eval_loss"] < 0.1 < last["eval_flow_loss"]


def test_a_run_goes_on_with_its_palettes(config, quantised, monkeypatch):
    monkeypatch.setattr(QuantiseStage, "_measured_recipe", None)  # it is read
    stage, mesh = QuantiseStage.build(config), make_mesh(MeshConfig())
    record = read_json(quantised.path / RECIPE)
    write_json(quantised.path / RECIPE, record | {"step": 7})
    with pytest.raises(UserError, match=r"quantises step 7 of .*/dit, not 1: set --config.init_from=.*/dit@7"):
        stage.check(quantised.path)
    write_json(quantised.path / RECIPE, record)
    stage.check(quantised.path)
    target = split(stage.denoiser.abstract_params(mesh))["palettes"]
    palettes = flatten_dict(stage.pretrained({"palettes": target})["palettes"], sep="/")
    weights = weights_of(quantised)
    for path, palette in palettes.items():
        np.testing.assert_allclose(palette, weights[path], rtol=1e-6)


def test_nothing_to_start_from_and_another_teacher_are_refused(config):
    with pytest.raises(UserError, match="leave out --config.teacher"):
        QuantiseStage.build(dataclasses.replace(config, teacher="runs/other"))
    stage = QuantiseStage.build(dataclasses.replace(config, init_from=""))
    with pytest.raises(UserError, match="name the run to quantise with --config.init_from=RUN"):
        stage.train_batches(make_mesh(MeshConfig()))
