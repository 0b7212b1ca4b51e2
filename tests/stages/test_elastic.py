"""Elastic training: the whole network and its widths, and each width as a run of its own."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.elastic import WIDTHS, own_params, sliced, width_params
from mobile_video_jax.models.run import Run
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.prune.width import slice_run
from mobile_video_jax.stages.config import ElasticTraining
from mobile_video_jax.stages.elastic import ElasticStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from tests import tiny
from tests.commands import run as command
from tests.nets import normal, randomly

MODEL = DitConfig(width=16, depth=1, heads=2, head_dim=6, ffn=24, time_features=8)


def config(data: Path, **changes) -> ElasticTraining:
    plain = tiny.dit_config(data, model=MODEL, steps=2, eval_every=2, checkpoint_every=2)
    values = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return ElasticTraining(**values | {"stage": "elastic", "widths": (0.5,)} | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("elastic") / "latents")


@pytest.fixture(scope="module")
def trained(data) -> Run:
    train(ElasticStage(config(data)), data.parent / "elastic")
    return Run.open(data.parent / "elastic")


@pytest.fixture(scope="module")
def half(trained) -> Run:
    slice_run(trained, 0.5, trained.path.parent / "half")
    return Run.open(trained.path.parent / "half")


def mesh() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.local_devices()[:1])


def batch_of(stage: ElasticStage) -> dict:
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in stage.abstract_batch(1).items()}
    return batch | {"latents": normal(0, *batch["latents"].shape), "text_mask": jnp.ones_like(batch["text_mask"])}


@pytest.mark.slow
def test_both_networks_are_evaluated_and_logged(trained):
    metrics = read_metrics(trained.path)
    assert {"loss_whole", "loss_500", "kd_500"} <= {key for line in metrics for key in line}
    assert {"eval_loss", "eval_loss_500"} <= {key for line in metrics for key in line}


def test_an_elastic_run_is_read_as_its_whole_network(trained):
    params = trained.sharded_params(mesh())
    assert WIDTHS not in params and params["patch_in"]["kernel"].shape == (6, 16)
    assert trained.denoiser.config.transformer == MODEL


def test_a_slice_is_the_width_of_the_elastic_network_to_the_bit(trained, half):
    stage = ElasticStage(trained.config_as(ElasticTraining))
    member = stage.members[0.5]
    assert half.stage == "dit" and half.denoiser.config.transformer == member.config.transformer
    target = stage.ema_params(stage.shapes)
    elastic = trained.params(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), target))
    params = half.sharded_params(mesh())
    inputs = normal(0, 2, *member.latent_shape), jnp.array([0.2, 0.7]), normal(1, 2, 12, 384), jnp.ones((2, 12), bool)
    inside = jax.jit(lambda p, *x: apply(member.network, width_params(p, 0.5, member.parameter_shapes), *x))
    np.testing.assert_array_equal(jax.jit(member.velocity)(params, *inputs), inside(elastic, *inputs))
    assert half.record["description"]["slice"] == {"source": trained.name, "source_step": 2, "width": 0.5}


def test_the_same_slice_again_changes_nothing_and_another_is_refused(trained, half):
    before = (half.path / "run.json").read_text()
    assert slice_run(trained, 0.5, half.path)["width"] == 0.5
    assert (half.path / "run.json").read_text() == before
    with pytest.raises(UserError, match="made with another width"):
        slice_run(trained, 1.0, half.path)


def test_the_command_refuses_a_width_that_is_not_in_the_network_and_a_run_without_widths(trained, half, tmp_path):
    done = command("launch.slice", f"--model={trained.path}", "--width=0.4", f"--out={tmp_path / 'out'}")
    assert (done.status, done.out) == (2, "") and not (tmp_path / "out").exists(), done.err
    assert done.err == f"error: {trained.path} has no width 0.4: use one of 0.5, 1\n"
    with pytest.raises(UserError, match="is a run of stage 'dit', which has one width"):
        slice_run(half, 0.5, tmp_path / "out")


def test_the_whole_width_is_a_plain_run_of_all_parameters(trained, tmp_path):
    summary = slice_run(trained, 1.0, tmp_path / "whole")
    params = Run.open(tmp_path / "whole").sharded_params(mesh())
    assert jax.tree.all(jax.tree.map(np.array_equal, params, trained.sharded_params(mesh())))
    assert summary["parameters"] == trained.record["description"]["parameters"]


@pytest.mark.parametrize("balance", ["none", "global"])
def test_a_width_never_teaches_the_whole_network_and_shares_its_slices_gradient(data, balance):
    """The whole network's output layer, whose inputs no width shares, has its own gradient alone."""
    stage = ElasticStage(config(data, balance=balance, kd_weight=0.5))
    params, batch = randomly(stage.shapes), batch_of(stage)
    gradient = jax.jit(jax.grad(lambda p: stage.loss(p, batch, jax.random.key(0))[0]))(params)
    noisy = stage.training_batch(batch, jax.random.key(0))
    alone = jax.jit(jax.grad(lambda p: stage._whole_loss(p, noisy)[0]))(params)
    np.testing.assert_allclose(gradient["patch_in"]["kernel"][:, 8:], alone["patch_in"]["kernel"][:, 8:], atol=1e-6)
    assert np.abs(gradient["patch_in"]["kernel"][:, :8] - alone["patch_in"]["kernel"][:, :8]).max() > 1e-5
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient[WIDTHS]["500"]["output"]))
    np.testing.assert_allclose(gradient["modulation"]["kernel"], alone["modulation"]["kernel"], atol=1e-6)


def test_a_plain_run_is_the_start_of_all_widths(data, trained):
    source = tiny.dit_run(data.parent / "plain", tiny.dit_config(data, model=MODEL))
    stage = ElasticStage(config(data, init_from=str(source)))
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_first_device()), stage.shapes)
    params = stage.pretrained(target)
    shapes = stage.members[0.5].parameter_shapes
    own = own_params(sliced(Run.open(source).sharded_params(mesh()), shapes))
    jax.tree.map(np.testing.assert_array_equal, params[WIDTHS]["500"], own)
    again = ElasticStage(config(data, init_from=str(trained.path))).pretrained(target)
    assert jax.tree.structure(again) == jax.tree.structure(target)


def _first_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def test_widths_are_drawn_evenly_and_a_step_costs_two_networks(data):
    stage = ElasticStage(config(data, model=dataclasses.replace(MODEL, width=32, heads=4), widths=(0.25, 0.5)))
    drawn = jax.vmap(stage.loss_index)(jnp.arange(400))
    assert 150 < int(drawn.sum()) < 250
    costs = stage.inspect()
    flops = [costs["flops"]["total"], *(width["flops"] for width in costs[WIDTHS].values())]
    assert stage.cost(1).flops == pytest.approx(3 * 8 * (flops[0] + (flops[1] + flops[2]) / 2), rel=0.01)


@pytest.mark.parametrize("widths", [(1.0,), (0.5, 0.5), (0.3,)])
def test_widths_that_are_none_are_refused(data, widths):
    with pytest.raises(UserError, match="widths: name some below 1|use one that divides them"):
        ElasticStage(config(data, widths=widths))


def test_a_stage_whose_loss_needs_all_tokens_refuses_to_leave_some_out(data):
    with pytest.raises(UserError, match="stage 'elastic' trains on all tokens: set token_drop=0"):
        ElasticStage(config(data, token_drop=0.5))
