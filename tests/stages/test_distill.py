"""Step distillation as a stage: where it starts, what it leaves, how it goes on and when it stops."""

import dataclasses
import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec

from configs import distill
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.config import CollapseConfig, ObjectiveConfig
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.models.adapter import record_base
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.checkpoint import restore_model, save_model
from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig
from mobile_video_jax.train.divergence import TrainingDiverged
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.run import write_run
from mobile_video_jax.train.state import state_shardings
from mobile_video_jax.vae.latent_stats import LatentStats
from tests import tiny
from tests.nets import randomly

TEACHER = dataclasses.replace(tiny.DIT, width=48, depth=2, heads=2, head_dim=24, ffn=64)
STUDENT = dataclasses.replace(TEACHER, depth=1, heads=1)
OPTIMIZER = PlayersOptimizerConfig(
    **dataclasses.asdict(tiny.OPTIMIZER), opponent=OptimizerConfig(learning_rate=1e-3), generator_every=2
)
UP = ["generator", "block_0", "ffn", "up", "kernel"]
ALL_OFF = CollapseConfig(0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(folder) -> Path:
    return tiny.latents(folder / "latents")


@pytest.fixture(scope="module")
def teacher(folder, data) -> Path:
    return tiny.dit_run(folder / "teacher", tiny.dit_config(data, model=TEACHER, time_terminal=0.1))


@pytest.fixture(scope="module")
def student(folder, data) -> Path:
    changes = {"image_probability": 0.3, "time_terminal": 0.1}
    return tiny.dit_run(folder / "student", tiny.dit_config(data, model=STUDENT, **changes))


@pytest.fixture(scope="module")
def config(data, teacher, student) -> DistillTraining:
    shared = {"model": STUDENT, "steps": 4, "eval_every": 2, "checkpoint_every": 2, "time_shift": 3.0}
    plain = vars(tiny.dit_config(data, **shared)) | {"stage": "distill", "optimizer": OPTIMIZER}
    named = {"init_from": str(student), "teacher": str(teacher)}
    cheap = ObjectiveConfig(own_states=0.0, r1=0.0, kd=0.0)
    return DistillStage.build(DistillTraining(**plain | named, objective=cheap, watch=ALL_OFF, sampling_steps=2)).config


@pytest.fixture(scope="module")
def finished(config, folder) -> Path:
    train(DistillStage(config), folder / "distilled")
    return folder / "distilled"


def test_sizes_come_from_the_students_run_and_the_result_is_one_for_every_command(config, finished, teacher):
    assert config.model == STUDENT and config.teacher_model == TEACHER
    denoiser = Run.open(finished).denoiser
    assert denoiser.config.model == STUDENT and denoiser.time_shift(48) == 3.0
    again = DistillStage.build(dataclasses.replace(config, init_from=str(finished), teacher="")).config
    assert again.teacher == str(teacher)
    last = read_metrics(finished)[-1]
    assert {"distance", "real_accuracy", "fake_accuracy", "eval_motion", "eval_spread", "eval_colour"} <= set(last)


def test_the_student_is_trained_at_the_times_that_it_is_sampled_at_and_goes_on_to_start_from_images(config):
    assert config.image_probability == 0.3
    stage, trained = DistillStage(config), {}

    def objective(params, clips, grid, rng, **_):
        trained.update(grid=grid, conditioned=clips.conditioned)
        return jax.numpy.zeros(()), {}

    stage.objective = objective
    batch = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), stage.abstract_batch())
    stage.loss({}, batch, jax.random.key(0))
    sampled = stage.sample_config()
    np.testing.assert_allclose(trained["grid"], time_grid(2, shift=sampled.shift, terminal=sampled.terminal))
    assert sampled.terminal == 0.1 and trained["conditioned"] is not None


def test_both_players_move_and_no_checkpoint_holds_the_teacher(finished, student):
    stage = Run.open(finished).denoiser
    after, before = (restore_model(run, _on_device(stage.parameter_shapes)) for run in (finished, student))
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (after, before)), strict=True)]
    assert np.mean(moved) > 0.9
    logits = [line["real_logit"] for line in read_metrics(finished)]
    assert logits[0] == 0.0 != logits[-1]
    metadata = (finished / "checkpoints" / "4" / "state" / "_METADATA").read_text()
    assert "discriminator" in metadata and "teacher" not in metadata


def _on_device(shapes: dict) -> dict:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)


@pytest.mark.slow
def test_a_run_goes_on_exactly_with_both_players_and_stops_where_it_collapses(config, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "4")  # as if it had not come to the last save
    strict = dataclasses.replace(config, watch=dataclasses.replace(ALL_OFF, colour=1e-9))
    sign = "collapses at step 4: the colour of samples is .* variances .*; the best before is .*checkpoints/2"
    with pytest.raises(TrainingDiverged, match=sign):
        train(DistillStage(strict), run)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["2"]
    unbroken, again = (
        [{k: v for k, v in line.items() if "second" not in k and "tflops" not in k} for line in read_metrics(path)]
        for path in (finished, run)
    )
    assert again == unbroken and len(again) == 4


def test_a_run_of_other_losses_is_refused(config, finished):
    other = dataclasses.replace(config, objective=ObjectiveConfig(method="kd"))
    with pytest.raises(UserError, match="was trained with objective.method='adversarial', this config has 'kd'"):
        train(DistillStage(other), finished)


def test_the_average_and_the_moments_lie_where_the_generator_lies(config):
    large = dataclasses.replace(STUDENT, ffn=2048)  # smaller kernels are kept whole
    stage = DistillStage(dataclasses.replace(config, model=large))
    _, placed = state_shardings(stage, make_optimizer(config.optimizer, 4), make_mesh(config.mesh))
    kernel = lambda tree: tree["block_0"]["ffn"]["up"]["kernel"]
    cut = kernel(placed.params["generator"])
    assert cut.spec == PartitionSpec("fsdp", "tensor")
    assert placed.ema == placed.params["generator"] | {"teacher": {}}
    moments = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(placed.opt_state) if _names(path) == UP]
    assert len(moments) == 2 and set(moments) == {cut}


def _names(path: tuple) -> list[str]:
    return [str(getattr(key, "key", "")) for key in path][-len(UP) :]


def test_students_and_teachers_that_do_not_fit_are_told(config, data, teacher, student, tmp_path):
    with pytest.raises(UserError, match="learnt from no other run: name one to learn from with --config.teacher"):
        DistillStage.build(dataclasses.replace(config, teacher=""))
    other = tiny.dit_run(tmp_path / "other", tiny.dit_config(data, model=TEACHER, compression="t4_s8_c8"))
    with pytest.raises(UserError, match="has compression=t4_s8_c8, student .* t4_s8_c6: use runs on the same latents"):
        DistillStage.build(dataclasses.replace(config, teacher=str(other)))
    late = tiny.dit_run(tmp_path / "late", tiny.dit_config(data, model=TEACHER))
    with pytest.raises(UserError, match="has time_terminal=0.0, student .* 0.1: use runs on the same .* times"):
        DistillStage.build(dataclasses.replace(config, teacher=str(late)))
    moved = shutil.copytree(teacher, tmp_path / "moved")
    LatentStats((0.2,) * 6, (0.5,) * 6).save(moved / "vae")
    with pytest.raises(UserError, match="was trained on other latents"):
        DistillStage(dataclasses.replace(config, teacher=str(moved))).train_batches(make_mesh(MeshConfig()))
    for change, message in (
        ({"trunk_blocks": 3}, "a transformer of 2 blocks has no first 3"),
        ({"sampling_steps": 0}, "sampling_steps=0: use a whole number from 1"),
        ({"taps": (1, 3)}, "a transformer of 2 blocks has no block 3: use taps from 1 to 2"),
        ({"objective": ObjectiveConfig(method="consistency")}, "set --config.solver=renoise"),
    ):
        with pytest.raises(UserError, match=message):
            DistillStage(dataclasses.replace(config, **change))


def test_the_papers_sizes_are_a_game_of_shapes_alone():
    stage = build_stage(distill.get_config("mobile").to_dict())
    params = jax.eval_shape(stage.init, jax.random.key(0))
    assert stage.description()["teacher_parameters"] > 1.9e9
    loss, _ = jax.eval_shape(stage.loss, nn.unbox(params), stage.abstract_batch(), jax.random.key(0))
    assert loss.shape == ()


LORA = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def few_step(config, teacher, folder) -> Path:
    """A few-step teacher's run with random factors."""
    changes = {"init_from": str(teacher), "model": TEACHER, "lora": LORA, "solver": "renoise"}
    adapting = dataclasses.replace(config, **changes, objective=ObjectiveConfig(method="kd", distance=0.0))
    stage, run = DistillStage(adapting), folder / "few_step"
    factors = randomly(jax.eval_shape(stage.init, jax.random.key(0))["generator"], 0.5)
    run.mkdir()
    record_base(run, teacher, 1)
    save_model(run, 1, {"adapter": factors})
    write_run(run, "distill", plain(adapting), {}, dict(stage.sampling))
    return run


@pytest.fixture(scope="module")
def kdmd(config, few_step) -> DistillTraining:
    objective = ObjectiveConfig("kdmd", distance=0.0)
    changes = {"few_step": str(few_step), "critic_lora": LORA, "solver": "renoise", "objective": objective}
    return dataclasses.replace(config, **changes)


def test_kdmd_holds_one_teacher_and_factors_and_says_which_run_does_not_fit(kdmd, config, student, teacher, few_step):
    stage = DistillStage.build(kdmd)
    assert stage.config.few_step_lora == LORA and stage.frozen == {"teacher", "few_step"}
    counts = {part: count_parameters(tree) for part, tree in stage.shapes.items()}
    assert counts["critic"] == counts["few_step"] < counts["teacher"] / 5
    assert stage.ema_params(stage.shapes).keys() == stage.shapes["generator"].keys() | {"teacher"}
    for change, message in (
        ({"few_step": "", "init_from": ""}, "learns from a few-step teacher"),
        ({"few_step": ""}, "learns from a few-step teacher: distil one with .*_few_step .* --config.few_step=RUN"),
        ({"few_step": str(student)}, "holds no adapter: name a run of"),
        ({"teacher": str(student)}, "few_step adds to step 1 of .*teacher, not to .*student: set --config.teacher="),
        ({"solver": "euler"}, "is sampled with solver=renoise: set --config.solver=renoise"),
        ({"sampling_steps": 4}, "is sampled with sampling_steps=2: set --config.sampling_steps=2"),
        ({"critic_lora": LoraConfig()}, "set --config.critic_lora.rank=64"),
        ({"objective": ObjectiveConfig("kd")}, "method=kd has no few-step teacher: leave out few_step"),
    ):
        with pytest.raises(UserError, match=message):
            DistillStage.build(dataclasses.replace(kdmd, **change))
    with pytest.raises(UserError, match="an adapter is distilled from the run that it adds to: set --config.teacher="):
        DistillStage.build(dataclasses.replace(config, lora=LORA))
    with pytest.raises(UserError, match="an adapter is trained for another run: name that with --config.init_from"):
        DistillStage(dataclasses.replace(config, lora=LORA, init_from="")).train_batches(make_mesh(MeshConfig()))


def test_an_adapter_that_was_not_distilled_here_must_need_the_students_few_steps_and_no_guidance(kdmd, few_step):
    """As an imported or a fine-tuned one, whose run is of another stage."""
    record = json.loads((few_step / "run.json").read_text())
    other = few_step.with_name("imported")
    shutil.copytree(few_step, other)

    def build(**changes) -> DistillStage:
        (other / "run.json").write_text(json.dumps(record | {"stage": "dit"} | changes))
        return DistillStage.build(dataclasses.replace(kdmd, few_step=str(other)))

    sampling = record["sampling"]
    assert build().config.few_step_lora == LORA
    for changes, message in (
        ({"sampling": sampling | {"steps": 40, "guidance": 5.0}}, "in 40 steps with guidance 5, which is no few-step"),
        ({"sampling": sampling | {"steps": 8}}, "set --config.sampling_steps=8"),
        ({"sampling": sampling | {"times": [1.0, 0.75]}}, "at the times 1, 0.75, the student at 1, 0.1: set --config"),
        ({"config": record["config"] | {"time_terminal": 0.4}}, "at the times 1, 0.4, the student at 1, 0.1"),
    ):
        with pytest.raises(UserError, match=message):
            build(**changes)


@pytest.mark.slow
def test_a_teachers_adapter_is_distilled_and_teaches_a_student_by_kdmd(kdmd, config, teacher, tmp_path):
    changes = {"init_from": str(teacher), "teacher": "", "lora": LORA, "solver": "renoise"}
    adapting = dataclasses.replace(config, **changes, objective=ObjectiveConfig(method="kd", distance=0.0))
    train(DistillStage.build(adapting), tmp_path / "few_step")
    run = Run.open(tmp_path / "few_step")
    whole, base = (
        jax.tree.map(np.asarray, each.sharded_params(make_mesh(config.mesh))) for each in (run, Run.open(teacher))
    )
    changed = {path for path, leaf in flatten_dict(whole).items() if np.any(leaf != flatten_dict(base)[path])}
    assert changed and all(path[-2:] in {(name, "kernel") for name in "qkv"} | {("out", "kernel")} for path in changed)
    assert run.denoiser.sampling.solver == "renoise" and run.denoiser.sampling.guidance == 1
    stage = DistillStage.build(dataclasses.replace(kdmd, few_step=str(run)))
    train(stage, tmp_path / "student")
    last = read_metrics(tmp_path / "student")[-1]
    assert {"kd", "features", "matching", "critic_loss", "eval_kd"} <= last.keys() and np.isfinite(last["loss"])
    shutil.rmtree(tmp_path / "student" / "checkpoints" / "4")  # goes on from step 2, with the frozen parts read again
    train(stage, tmp_path / "student")
    again = read_metrics(tmp_path / "student")[-1]
    assert again["kd"] == last["kd"] and again["eval_kd"] == last["eval_kd"]
