"""launch.lazy across chunks: a causal run whose streams have outputs of the chunk before."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.lazy import chunks
from mobile_video_jax.lazy.choose import reuse_across_chunks
from mobile_video_jax.lazy.chunks import PlainStream
from mobile_video_jax.lazy.costs import ModuleCosts, sampling_costs, stream_costs
from mobile_video_jax.lazy.run import make_lazy
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from tests import tiny
from tests.generate.test_stream import MODEL as STREAMED
from tests.lazy.test_lazy import config
from tests.nets import normal

MODEL = dataclasses.replace(STREAMED, chunk_frames=1)
COMPUTED, ONE = ("....",) * 2, ("..p.", "....")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("chunks") / "latents")


@pytest.fixture(scope="module")
def causal(data) -> Run:
    """A causal run of two guided steps."""
    folder = tiny.dit_run(data.parent / "causal", tiny.dit_config(data, model=MODEL))
    record = json.loads((folder / "run.json").read_text()) | {"sampling": {"steps": 2, "guidance": 2.0}}
    (folder / "run.json").write_text(json.dumps(record))
    return Run.open(folder)


@pytest.fixture(scope="module")
def stream(causal) -> PlainStream:
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    sampler = causal.denoiser.sampling
    settings = SampleConfig(sampler.steps, sampler.guidance).with_times(**causal.denoiser.sampled_times(48))
    captions = {"text": normal(1, 3, 12, 384), "text_mask": jnp.ones((3, 12), bool)}
    return PlainStream(causal.denoiser, settings, causal.sharded_params(mesh), captions, None)


def test_sensitivity_makes_a_table_that_saves_the_target_of_a_streams_flops(data, causal):
    made = make_lazy(config(data, across="chunks", sampling_steps=0), causal, 0.05, data.parent / "made")
    assert set("".join(made["table"])) == {".", "p"} and 0.875 < made["flops_share"] <= 0.95
    assert made["method"] == "sensitivity" and 0 < made["stream_distance"] < 1
    denoiser = Run.open(data.parent / "made").denoiser
    costs = sampling_costs(denoiser, {"flops": {"total": 10}, "phone_seconds": 1.0})
    assert costs["stream_shares"]["flops"] == made["flops_share"] and costs["flops"] == 40  # of a whole clip all


def test_a_change_is_that_of_one_modules_output_of_the_chunk_before(stream, monkeypatch):
    """The update of a single step is that by which the second chunks of streams of one letter and of none differ."""
    monkeypatch.setattr(chunks, "SCORED", (2,))
    one = dataclasses.replace(stream, config=dataclasses.replace(stream.config, steps=1))
    changes = one.changes(0, jnp.array([1.0, 0.0]))
    assert changes.shape == (1, 2, 2) and (changes > 0).all()
    plain, other = ([*one._latents(0, (step,))] for step in ("....", "..p."))
    np.testing.assert_allclose(plain[1], other[1], atol=1e-5)
    np.testing.assert_allclose(changes[0, 1, 0], np.mean((plain[2] - other[2]) ** 2), rtol=1e-2)


def test_streams_of_no_letter_have_no_distance(stream):
    assert stream.distance(1, COMPUTED) == 0 < stream.distance(1, ONE)


def test_counted_costs_are_of_a_chunk_and_its_part_of_the_pass_that_renews_the_state(causal):
    two, one = (stream_costs(causal.denoiser, "flops", steps) for steps in (2, 1))
    np.testing.assert_array_equal(two.modules, one.modules)
    assert two.whole / one.whole == pytest.approx(1.5 / 2)
    assert two.share(ONE, guided=True) == pytest.approx(1 - 0.5 * two.modules[1, 0] / (2 * two.whole))


def test_modules_are_chosen_by_their_change_for_their_cost():
    costs, changes = ModuleCosts(10.0, np.array([[1.0, 2.0], [1.0, 2.0]])), np.ones((2, 2, 2))
    changes[0, 0] = [0.1, 0.15]
    assert reuse_across_chunks(changes, costs, 0.075).table == ("pp..", "....")


@pytest.mark.parametrize(
    ("changes", "target", "message"),
    [
        ({}, 0.2, "out of reach"),
        ({"method": "gates"}, 0.1, "gates are of steps"),
        ({"model": "whole"}, 0.1, "sees whole clips"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_folder_is_made(data, causal, changes, target, message):
    run = causal
    if changes.pop("model", ""):
        model = dataclasses.replace(MODEL, causal=False)
        run = Run.open(tiny.dit_run(data.parent / "whole", tiny.dit_config(data, model=model)))
    with pytest.raises(UserError, match=message):
        make_lazy(config(data, across="chunks", **changes), run, target, data.parent / "refused")
    assert not (data.parent / "refused").exists()
