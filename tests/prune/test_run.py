"""Pruning a run, and recovering what it leaves."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dit
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.distill.kd import kd_loss
from mobile_video_jax.latents.store import records
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.prune import run as pruning
from mobile_video_jax.prune.calibration_data import calibration_batches, calibration_stage
from mobile_video_jax.prune.config import Budget, PruneConfig, Ratios
from mobile_video_jax.prune.plan import costs_of, make_plan, planned_shapes, scoring_flops, sizes_of
from mobile_video_jax.prune.report import write_prune_report
from mobile_video_jax.prune.run import prune
from mobile_video_jax.prune.selection import Pruned
from mobile_video_jax.stages.config import DitTraining, RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage, scale_to
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.checkpoint import restore_model
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.vae.latent_stats import LatentStats
from tests import tiny
from tests.commands import call
from tests.commands import run as command
from tests.nets import normal, randomly
from tests.train.jobs import finish_job, start_job

MODEL = dataclasses.replace(tiny.DIT, width=48, depth=3, heads=2, head_dim=24, ffn=64)
CONFIG = PruneConfig(
    ratios=Ratios(2 / 3, 1 / 2, 1 / 2), ffn_multiple=16, group=16, clips=4, times=2, batch_clips=4, rows=4, probes=2
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("data") / "latents")


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory) -> Path:
    config = tiny.dit_config(data, model=MODEL, optimizer=dataclasses.replace(tiny.OPTIMIZER, name="adamw"))
    return tiny.dit_run(tmp_path_factory.mktemp("teacher") / "dit", config)


@pytest.fixture(scope="module")
def pruned(teacher, data, tmp_path_factory) -> tuple[Pruned, Path]:
    out = tmp_path_factory.mktemp("pruned") / "run"
    result = prune(CONFIG, teacher, "", out)
    write_prune_report(result, out, 1.0)
    return result, out


def recovery(pruned: Path, data: Path, **changes) -> RecoverTraining:
    shared = {f.name: getattr(tiny.dit_config(data), f.name) for f in dataclasses.fields(tiny.dit_config(data))}
    shared |= {"stage": "recover", "optimizer": dataclasses.replace(tiny.OPTIMIZER, name="adamw"), "steps": 4}
    return RecoverStage.build(RecoverTraining(**{**shared, "init_from": str(pruned), **changes})).config


def test_what_is_left_is_a_run_that_fits_the_budget_and_is_the_masked_model(pruned, teacher):
    result, out = pruned
    before, after = Run.open(teacher).denoiser, Run.open(out).denoiser
    [shape] = set(after.config.model.block_shapes)
    assert (len(after.config.model.block_shapes), *shape.widths) == (2, 1, 1, 32)
    count = after.describe()["parameters"]
    assert count == result.plan.limits["parameters"] < before.describe()["parameters"]
    whole, small = (restore_model(path, _target(stage)) for path, stage in ((teacher, before), (out, after)))
    inputs = (normal(0, 2, 3, 4, 4, 6), jnp.array([0.2, 0.7]), normal(1, 2, 12, 384), jnp.ones((2, 12), bool))
    masked = apply(before.network, whole, *inputs, None, jax.tree.map(jnp.asarray, result.keep))
    np.testing.assert_allclose(apply(after.network, small, *inputs), masked, atol=1e-5)


def _target(denoiser) -> dict:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = denoiser.parameter_shapes
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)


def test_the_report_holds_the_plans_the_scores_and_the_curves(pruned):
    result, out = pruned
    numbers = json.loads((out / "report.json").read_text())
    assert set(numbers["kd_loss"]) == {"greedy", "joint"} and numbers["chosen"] == "greedy"
    assert len(numbers["units"]) == 3 + 3 * 2 * 2 + 3 * 4 == len(result.scores)
    assert set(numbers["rank_correlation"]) == {"heads", "cross_heads", "ffn"}
    for level, curve in numbers["curves"].items():
        assert curve[0]["loss"] < 1e-9 and curve[-1]["loss"] > curve[1]["loss"] > 0, level
        assert curve[-1]["flops"] < curve[0]["flops"] and curve[-1]["latency"] < curve[0]["latency"]
    for model in numbers["models"].values():
        assert model["parameters"] <= numbers["models"]["before"]["parameters"]
    assert "rank correlation" in (out / "report.html").read_text().lower()
    for name in ("sensitivity.png", "kept.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_a_stopped_pruning_goes_on_with_the_losses_that_it_has(pruned, teacher, tmp_path, monkeypatch):
    """A last line cut short by the stop is scored again; everything else is taken from the file."""
    result, out = pruned
    text = (out / pruning.LOSSES).read_text()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / pruning.LOSSES).write_text(text[: len(text) - 5])
    scored = []
    original = pruning.Scorer.losses

    def counting(self, keeps):
        before = len(self.memo)
        losses = original(self, keeps)
        scored.append(len(self.memo) - before)
        return losses

    monkeypatch.setattr(pruning.Scorer, "losses", counting)
    again = prune(CONFIG, teacher, "", tmp_path / "run")
    assert sum(scored) == 1 and again.losses == pytest.approx(result.losses)
    with pytest.raises(UserError, match="holds losses of another model, calibration set or setting"):
        prune(dataclasses.replace(CONFIG, seed=1, score="magnitude"), teacher, "", _only_losses(out, tmp_path / "b"))


def _only_losses(out: Path, folder: Path) -> Path:
    folder.mkdir()
    (folder / pruning.LOSSES).write_text((out / pruning.LOSSES).read_text())
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": Budget(parameters=0.01)}, "out of reach: choose"),
        ({"budget": Budget(latency=0.001)}, "out of reach: choose"),
        ({"clips": 400}, "hold.* of the 400 clips for calibration"),
        ({"ffn_multiple": 8}, "a multiple of the 16 channels of a group"),
    ],
)
def test_what_cannot_be_pruned_so_is_told(change, message, teacher, tmp_path):
    with pytest.raises(UserError, match=message):
        prune(dataclasses.replace(CONFIG, **change), teacher, "", tmp_path / "out")
    assert not (tmp_path / "out").exists(), "a refused command locks no folder"


@pytest.mark.slow
def test_the_processes_of_a_job_prune_as_one(pruned, teacher, tmp_path):
    """Two hosts of two devices each: clips over data, weights over fsdp; both score, one writes."""
    config = plain(CONFIG)
    changed = [f"--config.{key}={config[key]}" for key in ("ffn_multiple", "group", "clips", "times", "batch_clips")]
    changed += ["--config.rows=4", "--config.probes=2", "--config.channels=exact", *RATIOS]
    arguments = ["launch.prune", f"--model={teacher}", f"--out={tmp_path / 'run'}", "--fsdp=2"]
    done = finish_job(start_job([*arguments, *changed], processes=2, devices=2), 400)
    assert [finished.status for finished in done] == [0, 0], done[0].err + done[1].err
    numbers = json.loads((tmp_path / "run" / "report.json").read_text())
    scores = [score for *_, score in numbers["units"]]
    assert scores == pytest.approx(list(pruned[0].scores.values()), rel=1e-3, abs=1e-6)
    assert numbers["kd_loss"]["greedy"] == pytest.approx(pruned[0].losses["greedy"], rel=1e-3)
    assert Run.open(tmp_path / "run").denoiser.config.model == Run.open(pruned[1]).denoiser.config.model


RATIOS = ("--config.ratios.block=0.6667", "--config.ratios.head=0.5", "--config.ratios.channel=0.5")


def test_calibration_is_a_seeded_shuffle_of_the_training_clips(teacher):
    def clips_of(seed: int) -> np.ndarray:
        config, layout = dataclasses.replace(CONFIG, seed=seed, clips=24, times=1), MeshConfig()
        run = Run.open(teacher)
        stage = calibration_stage(DitStage.of_run(run), config, "", layout)
        batches = calibration_batches(config, stage, run, make_mesh(layout))
        return np.concatenate([batch.text[:, 0, 0] for batch in batches])

    first, again, other = clips_of(0), clips_of(0), clips_of(1)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    levels = [record["text_states"][0, 0] for record in records(tiny_data(teacher), "train")]
    assert len(set(first) & set(levels)) == len(set(first) - {0})  # 0: no caption
    assert 0 in np.concatenate([clips_of(seed) for seed in range(3)])


def tiny_data(teacher: Path) -> Path:
    return Path(Run.open(teacher).config["data"])


def test_latents_of_another_vae_are_told(pruned, teacher, data, tmp_path):
    other = tiny.latents(tmp_path / "latents")
    LatentStats((0.2,) * 6, (0.5,) * 6).save(other / "vae")
    with pytest.raises(UserError, match="latents of another VAE"):
        prune(CONFIG, teacher, str(other), tmp_path / "out")
    with pytest.raises(UserError, match="was trained on other latents"):
        RecoverStage(recovery(pruned[1], other)).start(tmp_path / "run")


def test_another_way_of_pruning_needs_another_folder(pruned, teacher):
    with pytest.raises(UserError, match="in another way: use another --out"):
        prune(dataclasses.replace(CONFIG, seed=1), teacher, "", pruned[1])


def test_recovery_takes_sizes_and_teacher_from_the_pruned_run(pruned, teacher, data):
    config = recovery(pruned[1], data)
    assert config.model.depth == 2 and config.teacher == str(teacher) and config.teacher_model == MODEL
    assert config.block_map == tuple(np.flatnonzero(pruned[0].keep.block))
    assert isinstance(build_stage(json.loads(json.dumps(dataclasses.asdict(config)))), RecoverStage)
    with pytest.raises(UserError, match="learnt from no other run"):
        recovery(teacher, data)


def test_recovery_learns_from_the_step_that_was_pruned_where_one_was_chosen(pruned, teacher, data, tmp_path):
    shutil.copytree(pruned[1], tmp_path / "run")
    record = json.loads((pruned[1] / "pruned.json").read_text())
    assert (record["teacher"], record["teacher_step"]) == (str(teacher), 1)
    (tmp_path / "run" / "pruned.json").write_text(json.dumps(record | {"teacher": Run.open(teacher, step=1).name}))
    config = recovery(tmp_path / "run", data)
    assert config.teacher == f"{teacher}@1" and RecoverStage.build(config).teacher_run.step == 1


@pytest.fixture(scope="module")
def stage(pruned, data) -> RecoverStage:
    return RecoverStage(recovery(pruned[1], data, caption_dropout=0.0))


def test_the_loss_is_flow_matching_and_the_distillation_loss(stage, data):
    params = randomly(jax.eval_shape(stage.init, jax.random.key(0)), 0.1)
    batch = {
        key: jnp.asarray(value)
        for key, value in next(iter(stage.eval_batches(make_mesh(MeshConfig())))).items()
        if key != "record"
    }
    rng = jax.random.key(3)
    loss, metrics = jax.jit(stage.loss)(params, batch, rng)
    noisy = stage.training_batch(batch, rng)
    outputs, hidden = (
        jax.jit(denoiser.velocity_and_features)(params[part], *noisy.inputs)
        for denoiser, part in ((stage.denoiser, "student"), (stage.teacher, "teacher"))
    )
    picked = (hidden[0], hidden[1][jnp.array(stage.block_map)])
    errors = noisy.errors(outputs[0]) + kd_loss(outputs, picked, jnp.ones(2), stage.config.kd)
    np.testing.assert_allclose(loss, jnp.mean(errors), rtol=1e-5)
    assert float(loss) == pytest.approx(float(sum(metrics.values())), rel=1e-5)
    gradient = jax.jit(jax.grad(lambda p: stage.loss(p, batch, rng)[0]))(params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient["teacher"]))


def test_timestep_aware_distillation_weighs_as_much_as_flow_matching():
    flow, distilled = jnp.array([0.1, 2.0]), jnp.array([0.4, 0.02])
    np.testing.assert_allclose(distilled * scale_to(flow, distilled), flow, rtol=1e-6)
    assert not np.any(jax.grad(lambda x: jnp.sum(scale_to(flow, x)))(distilled))


@pytest.mark.slow
def test_recovery_trains_the_student_alone_and_leaves_it_for_every_command(pruned, data, tmp_path):
    train(RecoverStage(recovery(pruned[1], data)), tmp_path / "run")
    after = Run.open(tmp_path / "run").denoiser
    assert after.config.model == Run.open(pruned[1]).denoiser.config.model
    weights, first = (restore_model(path, _target(after)) for path in (tmp_path / "run", pruned[1]))
    changed = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), weights, first)
    assert all(change > 0 for change in jax.tree.leaves(changed["block_0"]["ffn"]))
    lines = read_metrics(tmp_path / "run")
    assert {"flow_loss", "velocity_kd", "feature_kd", "eval_loss"} <= set(lines[-1])
    with pytest.raises(UserError, match="kd.velocity=1.0, this config has 0.0"):
        train(RecoverStage(recovery(pruned[1], data, kd=KdWeights(0.0, 0.0))), tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "block_map", "message"),
    [
        (dataclasses.replace(MODEL, depth=4), (), "4 blocks has no counterpart in a teacher of 3"),
        (dataclasses.replace(MODEL, depth=2), (0, 3), "does not map 2 blocks to 3: name 2 ascending numbers"),
        (dataclasses.replace(MODEL, depth=2), (1, 1), "does not map 2 blocks to 3"),
    ],
)
def test_blocks_that_cannot_be_compared_are_told(model, block_map, message, data):
    config = RecoverTraining(**{**vars(tiny.dit_config(data)), "stage": "recover", "model": model})
    with pytest.raises(UserError, match=message):
        RecoverStage(dataclasses.replace(config, teacher_model=MODEL, block_map=block_map))


def test_a_student_of_another_width_is_compared_through_projectors(data):
    config = RecoverTraining(**{**vars(tiny.dit_config(data)), "stage": "recover", "teacher_model": MODEL})
    assert not RecoverStage(dataclasses.replace(config, model=MODEL)).is_projected
    wider = dataclasses.replace(config, model=dataclasses.replace(MODEL, width=96))
    assert RecoverStage(wider).is_projected
    with pytest.raises(UserError, match="block_map compares equal blocks of one width"):
        RecoverStage(dataclasses.replace(wider, block_map=(0, 1, 2)))


def test_blocks_are_spread_over_the_teachers_where_no_map_is_given(data):
    config = RecoverTraining(**{**vars(tiny.dit_config(data)), "stage": "recover", "teacher_model": MODEL})
    assert RecoverStage(dataclasses.replace(config, model=dataclasses.replace(MODEL, depth=2))).block_map == (0, 2)
    assert RecoverStage(dataclasses.replace(config, model=dataclasses.replace(MODEL, depth=1))).block_map == (2,)


def test_the_paper_s_plan_follows_from_shapes_alone():
    server = Denoiser(from_mapping(DitTraining, dit.get_config("server").to_dict()))
    plan = make_plan(PruneConfig(), server)
    shapes = planned_shapes(plan)
    assert sizes_of(shapes) == {"blocks": 20, "heads": 20, "cross_heads": 20, "ffn": 6144}
    assert abs(costs_of(plan, shapes)["parameters"] / 0.9e9 - 1) < 0.08
    assert scoring_flops(PruneConfig(), plan) > 1e19


def test_a_plan_is_printed_for_a_config():
    done = command("launch.prune", "--plan-only", "--model=configs/dit.py:tiny", "--config=configs/prune.py:tiny")
    plan = json.loads(done.out.splitlines()[-1])
    assert plan["after"]["parameters"] == plan["limits"]["parameters"] and set(plan["chip_hours"]) >= {"v5p", "v6e"}
    bad = command("launch.prune", "--plan-only", "--model=configs/none.py:a")
    assert bad.status == 2 and "there is no config file configs/none.py" in bad.err


@pytest.mark.slow
def test_a_stopped_recovery_goes_on_to_the_bit_without_a_copy_of_the_teacher_and_on_a_mesh(pruned, data, tmp_path):
    config = recovery(pruned[1], data, steps=4, checkpoint_every=2, eval_every=4)
    train(RecoverStage(config), tmp_path / "whole")
    state = tmp_path / "whole" / "checkpoints" / "2" / "state"
    assert "teacher" not in (state / "_METADATA").read_text() and "student" in (state / "_METADATA").read_text()
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "4")
    train(RecoverStage(config), tmp_path / "stopped")
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("whole", "stopped")]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    done = call(recover_on_a_mesh, pruned[1], data, tmp_path / "mesh", devices=8)
    assert done.status == 0, done.err
    on_mesh = [line["loss"] for line in read_metrics(tmp_path / "mesh")]
    np.testing.assert_allclose(on_mesh, losses[0], rtol=1e-4)


def recover_on_a_mesh(pruned: Path, data: Path, out: Path) -> None:
    """The same on eight devices, which cut student and teacher alike."""
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    train(RecoverStage(recovery(pruned, data, steps=4, checkpoint_every=4, eval_every=4, mesh=mesh)), out)
