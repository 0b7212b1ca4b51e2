"""Tokens sharded over devices: the same loss and gradients, with smaller activations on each device."""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.attention.kernels import KEY_SPEC, MASK_SPEC, SEQUENCE_SPEC
from mobile_video_jax.nn.attention.layer import xla_attend
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import AXES, SEQUENCE, make_mesh, put_batch
from mobile_video_jax.parallel.rules import constrain_to_sequence, parameter_shardings
from mobile_video_jax.stages.dit import DitStage
from tests import tiny
from tests.commands import call
from tests.nets import randomly
from tests.nn.test_attention_kernels import interpreted, with_gradients

# Attention narrower than the residual, to tell gathered keys and values from whole activations in the program.
MODEL = dataclasses.replace(tiny.DIT, heads=4, scan=True, remat="dots", depth=2)
REPLICATED, SHARDED = MeshConfig(), MeshConfig(2, 2, 1, 2)


def stage(mesh: MeshConfig, **changes) -> DitStage:
    return DitStage(tiny.dit_config(Path(), model=MODEL, mesh=mesh, **changes))


def gradients(stage: DitStage, devices: list) -> tuple[dict, str]:
    """Loss and gradients at random weights on a random batch, and the compiled program's text."""
    mesh = make_mesh(stage.config.mesh, devices)
    boxed = jax.eval_shape(stage.init, jax.random.key(0))
    params = jax.device_put(randomly(nn.unbox(boxed), 0.05), parameter_shardings(boxed, mesh))
    rng = np.random.default_rng(0)
    batch = {key: rng.normal(size=x.shape).astype(x.dtype) for key, x in stage.abstract_batch(len(devices)).items()}
    run = (
        jax.jit(jax.value_and_grad(stage.loss, has_aux=True))
        .lower(params, put_batch(batch, mesh), jax.random.key(1))
        .compile()
    )
    return jax.device_get(run(params, put_batch(batch, mesh), jax.random.key(1))), run.as_text()


def compare(out: Path) -> None:
    expected, _ = gradients(stage(REPLICATED), jax.devices()[:1])
    sharded, text = gradients(stage(SHARDED), jax.devices()[:8])
    errors = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), expected, sharded)
    out.write_text(json.dumps({"errors": jax.tree.leaves(errors), "text": text}))


def test_sharded_tokens_give_the_same_gradients_with_half_the_activations(tmp_path):
    done = call(compare, tmp_path / "report", devices=8)
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "report").read_text())
    assert len(report["errors"]) > 30 and max(report["errors"]) < 1e-6
    # 8 clips over data x fsdp = 4, their 48 tokens over 2.
    for width in (MODEL.width, MODEL.ffn):
        assert f"f32[2,24,{width}]" in report["text"] and f"2,48,{width}]" not in report["text"]


def splash(out: Path) -> None:
    mesh = make_mesh(MeshConfig(1, 1, 1, 2))
    queries, keys, batch = (NamedSharding(mesh, spec) for spec in (SEQUENCE_SPEC, KEY_SPEC, MASK_SPEC))
    qkv = [jax.random.normal(jax.random.key(i), (2, n, 2, 64)) for i, n in enumerate((150, 77, 77))]
    mask = jnp.arange(77)[None, None] < jnp.array([77, 5])[:, None, None]
    run = jax.jit(with_gradients(interpreted), in_shardings=(queries, keys, keys, batch))
    pairs = zip(run(*qkv, mask), jax.jit(with_gradients(xla_attend))(*qkv, mask), strict=True)
    out.write_text(json.dumps([float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs]))


@pytest.mark.slow
def test_splash_takes_queries_sharded_over_tokens(tmp_path):
    done = call(splash, tmp_path / "errors", devices=2)
    assert done.status == 0, done.err
    assert max(json.loads((tmp_path / "errors").read_text())) < 2e-5


def test_the_sequence_axis_exists_only_above_one():
    assert MeshConfig(-1, 2, 1, 2).sizes(8) == (2, 2, 1)
    assert make_mesh(MeshConfig(), jax.devices()[:1]).axis_names == AXES and SEQUENCE not in AXES
    with pytest.raises(UserError, match=r"sequence=3 does not divide 8 device\(s\)"):
        MeshConfig(-1, 1, 1, 3).sizes(8)


def test_tokens_that_do_not_divide_are_refused():
    mesh = AbstractMesh((1, 1, 1, 5), (*AXES, SEQUENCE), (AxisType.Auto,) * 4)
    tokens = jax.ShapeDtypeStruct((2, 48, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    with pytest.raises(UserError, match=r"clips of 48 tokens do not divide over mesh\.sequence=5: use a divisor"):
        jax.eval_shape(constrain_to_sequence, tokens)
