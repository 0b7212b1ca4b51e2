"""launch.lazy: from a run to one whose steps do without modules, by gates and by sensitivity."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import distill, lazy
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.stepwise import StepState, Stepwise
from mobile_video_jax.lazy.choose import leave_out_by_rise, reuse_by_score
from mobile_video_jax.lazy.costs import ModuleCosts, module_costs
from mobile_video_jax.lazy.run import make_lazy
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import DistillTraining, LazyTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.train.checkpoint import steps
from tests import tiny
from tests.nets import normal, randomly

MODEL = DitConfig(width=16, depth=2, heads=2, head_dim=8, ffn=32, time_features=8)
COSTS = ModuleCosts(10.0, np.array([[1.0, 2.0], [1.0, 2.0]]))


def config(data: Path, **changes) -> LazyTraining:
    small = {"steps": 2, "batch_size": 8, "score_clips": 8, "eval_every": 2, "eval_batches": 1, "checkpoint_every": 2}
    loaded = from_mapping(LazyTraining, lazy.get_config("tiny").to_dict())
    return dataclasses.replace(loaded, data=str(data), **small | {"sampling_steps": 3} | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("lazy") / "latents")


@pytest.fixture(scope="module")
def teacher(data) -> Run:
    return Run.open(tiny.dit_run(data.parent / "teacher", tiny.dit_config(data, model=MODEL)))


@pytest.fixture(scope="module")
def student(data) -> Run:
    """An unguided run of three steps."""
    folder = tiny.dit_run(data.parent / "student", tiny.dit_config(data, model=MODEL))
    record = json.loads((folder / "run.json").read_text()) | {"sampling": {"steps": 3, "guidance": 1.0}}
    (folder / "run.json").write_text(json.dumps(record))
    return Run.open(folder)


@pytest.fixture(scope="module")
def by_gates(data, teacher) -> Run:
    make_lazy(config(data, method="gates"), teacher, 0.3, data.parent / "gated")
    return Run.open(data.parent / "gated")


def test_gates_become_a_table_that_saves_the_target(by_gates, teacher):
    sampling = by_gates.denoiser.sampling
    assert sampling.steps == 3 and set(sampling.reuse[0]) == {"."}
    share = module_costs(teacher.denoiser, "flops").share(sampling.reuse, guided=True)
    assert 0.55 < share <= 0.7
    assert by_gates.record["description"]["lazy"]["flops_share"] == share


def test_chance_chooses_what_a_guided_run_reuses(data, teacher, by_gates):
    made = make_lazy(config(data, method="random"), teacher, 0.3, data.parent / "by_chance")
    assert set(made["table"][0]) == {"."} and "-" not in "".join(made["table"])
    assert 0.55 < made["flops_share"] <= 0.7 and tuple(made["table"]) != by_gates.denoiser.sampling.reuse


def test_the_new_run_has_the_same_weights(by_gates, teacher):
    cpu = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "sequence"))
    params, others = by_gates.sharded_params(cpu), teacher.sharded_params(cpu)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, others))


def test_a_stopped_command_resumes_and_a_finished_one_changes_nothing(by_gates, data, teacher):
    before = (by_gates.path / "run.json").read_text()
    again = make_lazy(config(data, method="gates"), teacher, 0.3, by_gates.path)
    assert (by_gates.path / "run.json").read_text() == before and steps(by_gates.path / "gates") == [2]
    assert tuple(again["table"]) == by_gates.denoiser.sampling.reuse
    with pytest.raises(UserError, match="made with another target"):
        make_lazy(config(data, method="gates"), teacher, 0.2, by_gates.path)


@pytest.fixture(scope="module")
def left_out(student, data) -> dict:
    return make_lazy(config(data, sampling_steps=0), student, 0.25, data.parent / "left_out")


def test_a_student_leaves_modules_out_and_every_step_may(left_out, data):
    assert set("".join(left_out["table"])) == {".", "-"} and 0.5 < left_out["flops_share"] <= 0.75
    assert sorted(path.name for path in (data.parent / "left_out").glob("losses_*")) == [
        f"losses_{i}.jsonl" for i in range(3)
    ]


def test_a_student_is_trained_with_the_table_of_its_run(left_out, data, teacher):
    named = {"init_from": left_out["out"], "teacher": str(teacher.path), "data": str(data), "clip": tiny.CLIP}
    config = dataclasses.replace(from_mapping(DistillTraining, distill.get_config("tiny").to_dict()), **named)
    with pytest.raises(UserError, match="set --config.sampling_steps=3"):
        DistillStage.build(config)
    stage = DistillStage.build(dataclasses.replace(config, sampling_steps=3))
    table = tuple(left_out["table"])
    assert stage.sampling["reuse"] == stage.sample_config().reuse == table
    params, grid = randomly(stage.denoiser.parameter_shapes), time_grid(3, shift=1.0)
    inputs = normal(0, 3, *stage.denoiser.latent_shape), grid[:-1], normal(1, 3, 12, 384), jnp.ones((3, 12), bool)
    together = jax.jit(stage.objective.student)(params, *inputs)
    stepwise = jax.jit(Stepwise.of_table(stage.denoiser.network, table, guided=False))
    for i in range(3):
        alone, _ = stepwise(params, StepState(jnp.int32(i), {}, {}), *(x[i : i + 1] for x in inputs))
        np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "target", "message"),
    [
        ({}, 0.9, "out of reach"),
        ({"sampling_steps": 1}, 0.3, "a single step has none before it"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_folder_is_made(data, teacher, changes, target, message):
    with pytest.raises(UserError, match=message):
        make_lazy(config(data, **changes), teacher, target, data.parent / "refused")
    assert not (data.parent / "refused").exists()


def test_scores_are_taken_from_the_top_until_the_target_is_saved():
    scores = np.zeros((2, 2, 2, 2))
    scores[0] = 1.0  # the first step has nothing to reuse
    scores[1, 0, 1] = [0.9, 0.8]
    scores[1, 1, 0] = [0.2, 0.7]
    assert reuse_by_score(scores, COSTS, 0.1) == ((("....", ".b..")), 0.8)
    assert reuse_by_score(scores, COSTS, 0.11) == ((("....", ".bu.")), 0.7)


def test_modules_are_left_out_by_the_rise_of_the_loss_for_their_cost():
    rises = np.ones((2, 2, 2))
    rises[0, 0] = [0.1, 0.15]
    assert leave_out_by_rise(rises, COSTS, 0.15).table == ("--..", "....")
