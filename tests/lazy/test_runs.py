"""Choice of sampling steps that reuse all of the step before, and what they change of finished clips."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.lazy.costs import ModuleCosts
from mobile_video_jax.lazy.run import RUN_ERRORS, make_lazy
from mobile_video_jax.lazy.runs import best_runs, best_table, longest_run, most_reused, table_of
from mobile_video_jax.lazy.steps import PlainSampler
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from tests import tiny
from tests.lazy.test_lazy import config
from tests.nets import normal

MODEL = DitConfig(width=16, depth=2, heads=2, head_dim=8, ffn=32, time_features=8)
COSTS = ModuleCosts(10.0, np.array([[1.0, 2.0], [1.0, 2.0]]))
STEPS = 5


def plain_sampler(run: Run, params, **changes) -> PlainSampler:
    settings = SampleConfig(STEPS, 3.0, **changes).with_times(**run.denoiser.sampled_times(48))
    shape = (2, *run.denoiser.latent_shape)
    captions = {"text": normal(1, 2, 12, 384), "text_mask": jnp.ones((2, 12), bool), "latents": jnp.zeros(shape)}
    return PlainSampler(run.denoiser, settings, params, captions, None, 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.latents(tmp_path_factory.mktemp("runs") / "latents")


@pytest.fixture(scope="module")
def teacher(data) -> Run:
    return Run.open(tiny.dit_run(data.parent / "teacher", tiny.dit_config(data, model=MODEL)))


@pytest.fixture(scope="module")
def params(teacher):
    return teacher.sharded_params(make_mesh(MeshConfig(), jax.local_devices()[:1]))


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_the_error_of_a_run_is_that_of_the_sampler_with_its_table(teacher, params, solver):
    plain = plain_sampler(teacher, params, solver=solver)
    known: dict = {}
    errors = plain.run_errors(2, known)
    assert set(errors) == {*((first, 1) for first in range(1, STEPS)), *((first, 2) for first in range(1, STEPS - 1))}
    text, mask = plain.captions["text"], plain.captions["text_mask"]
    noise = jax.random.normal(jax.random.key(0), plain.captions["latents"].shape)
    sampler = lambda table: dataclasses.replace(plain.config, reuse=table)
    whole, other = (
        sample_latents(plain.denoiser.network, sampler(table_of(runs, STEPS, 2)), params, noise, text, mask)
        for runs in ([], [(2, 2)])
    )
    np.testing.assert_allclose(errors[2, 2], np.mean((whole - other) ** 2), rtol=1e-2)
    np.testing.assert_allclose(errors[2, 2], plain.error(table_of([(2, 2)], STEPS, 2)), rtol=1e-2)
    assert plain.run_errors(2, {key: 7.0 for key in known}) == dict.fromkeys(errors, 7.0)


def test_steps_of_which_no_output_changes_cost_nothing(teacher, params):
    """Without their output layers' kernels modules add their biases at every step."""
    constant = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if {"out", "down"} & {k.key for k in path} and path[-1].key == "kernel" else x, params
    )
    whole = plain_sampler(teacher, params).run_errors(1, {})
    nothing = plain_sampler(teacher, constant).run_errors(1, {})
    assert min(whole.values()) > 0 and max(nothing.values()) < 1e-9 * max(whole.values())


def test_the_best_runs_are_those_of_all_with_the_least_sum():
    rng = np.random.default_rng(0)
    steps = 8
    errors = {(i, n): float(rng.random()) * n for i in range(1, steps) for n in range(1, 4) if i + n <= steps}
    for reused in range(5):
        sums = []
        for chosen in itertools.combinations(range(1, steps), reused):
            groups = [[*group] for _, group in itertools.groupby(enumerate(chosen), lambda pair: pair[1] - pair[0])]
            runs = [(group[0][1], len(group)) for group in groups]
            if all(run in errors for run in runs):
                sums.append(sum(errors[run] for run in runs))
        assert sum(errors[run] for run in best_runs(errors, steps, reused)) == pytest.approx(min(sums))


def test_a_run_that_changes_nothing_is_chosen_and_the_rest_is_of_blocks():
    errors = {(first, length): 1.0 for first in range(1, STEPS) for length in range(1, 5) if first + length <= STEPS}
    errors[2, 2] = 0.0
    cost = lambda table: 1.0 + sum(step.count("b") for step in table) / 100
    table, error = best_table(errors, COSTS, 0.24, STEPS, cost)
    assert table == ("....",) + ("....",) + ("bbbb",) * 2 + ("....",) and error == cost(table)
    partial, _ = best_table(errors, COSTS, 0.3, STEPS, cost)
    assert partial[2:4] == ("bbbb",) * 2 and COSTS.share(partial, guided=True) == pytest.approx(0.7)
    whole, _ = best_table(errors, COSTS, 0.3, STEPS, lambda table: -cost(table))
    assert {*whole} == {"....", "bbbb"} and COSTS.share(whole, guided=True) == pytest.approx(0.64)


@pytest.mark.parametrize("steps", [2, 3, 10])
def test_every_target_in_reach_has_a_table(steps):
    reach = (steps - 1) / steps * 0.6
    for target in (0.01 * reach, 0.5 * reach, 0.9 * reach, 0.999 * reach):
        longest = longest_run(steps, most_reused(COSTS, steps, target))
        errors = {(i, n): float(n) for i in range(1, steps) for n in range(1, longest + 1) if i + n <= steps}
        table, _ = best_table(errors, COSTS, target, steps, lambda table: 0.0)
        assert COSTS.share(table, guided=True) <= 1 - target + 1e-9 and set(table[0]) == {"."}


def test_a_guided_run_is_made_by_sensitivity_and_a_stopped_one_resumes_to_the_same(data, teacher):
    out = data.parent / "made"
    made = make_lazy(config(data, sampling_steps=4), teacher, 0.3, out)
    assert made["method"] == "sensitivity" and set("".join(made["table"])) == {".", "b"}
    assert 0.5 < made["flops_share"] <= 0.7 and made["clip_distance"] > 0
    lines = (out / RUN_ERRORS).read_text().splitlines()
    (out / "run.json").unlink()
    (out / RUN_ERRORS).write_text("\n".join([*lines[:3], lines[3][:5]]))  # stopped within a line
    assert make_lazy(config(data, sampling_steps=4), teacher, 0.3, out)["table"] == made["table"]
    assert (out / RUN_ERRORS).read_text().splitlines()[:3] == lines[:3]
