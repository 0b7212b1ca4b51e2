"""Clips whose tokens are shared by devices: the same loss and gradients, and activations of a part of the size."""

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
from mobile_video_jax.nn.attention.kernels import CUT as WHOLE
from mobile_video_jax.nn.attention.kernels import CUT_BATCH, CUT_TOKENS
from mobile_video_jax.nn.attention.layer import xla_attend
from mobile_video_jax.parallel.mesh import AXES, SEQUENCE, MeshConfig, make_mesh, put_batch
from mobile_video_jax.parallel.rules import constrain_to_sequence, parameter_shardings
from mobile_video_jax.stages.dit import DitStage
from tests import tiny
from tests.commands import call
from tests.nets import randomly
from tests.nn.test_attention_kernels import interpreted, with_gradients

# Attention narrower than the residual, so that gathered keys and values are told from whole activations.
MODEL = dataclasses.replace(tiny.DIT, heads=4, scan=True, remat="dots", depth=2)
UNCUT, CUT = MeshConfig(), MeshConfig(2, 2, 1, 2)


def stage(mesh: MeshConfig, **changes) -> DitStage:
    return DitStage(tiny.dit_config(Path(), model=MODEL, mesh=mesh, **changes))


def gradients(made: DitStage, devices: list) -> tuple[dict, str]:
    """Loss and gradients of random weights and a random batch, and the program that gave them."""
    mesh = make_mesh(made.config.mesh, devices)
    boxed = jax.eval_shape(made.init, jax.random.key(0))
    params = jax.device_put(randomly(nn.unbox(boxed), 0.05), parameter_shardings(boxed, mesh))
    rng = np.random.default_rng(0)
    batch = {key: rng.normal(size=x.shape).astype(x.dtype) for key, x in made.abstract_batch(len(devices)).items()}
    run = (
        jax.jit(jax.value_and_grad(made.loss, has_aux=True))
        .lower(params, put_batch(batch, mesh), jax.random.key(1))
        .compile()
    )
    return jax.device_get(run(params, put_batch(batch, mesh), jax.random.key(1))), run.as_text()


def compare(out: Path) -> None:
    (uncut, _), (cut, text) = (gradients(stage(mesh), jax.devices()[:size]) for mesh, size in ((UNCUT, 1), (CUT, 8)))
    errors = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), uncut, cut)
    out.write_text(json.dumps({"errors": jax.tree.leaves(errors), "text": text}))


def test_gradients_are_those_of_uncut_clips_from_half_of_their_activations(tmp_path):
    done = call(compare, tmp_path / "found", devices=8)
    assert done.status == 0, done.err
    found = json.loads((tmp_path / "found").read_text())
    assert len(found["errors"]) > 30 and max(found["errors"]) < 1e-6
    # 8 clips over data x fsdp = 4, their 48 tokens over 2.
    for width in (MODEL.width, MODEL.ffn):
        assert f"f32[2,24,{width}]" in found["text"] and f"2,48,{width}]" not in found["text"]


def splash(out: Path) -> None:
    mesh = make_mesh(MeshConfig(1, 1, 1, 2))
    cut, whole, batch = (NamedSharding(mesh, spec) for spec in (CUT_TOKENS, WHOLE, CUT_BATCH))
    keys = jax.random.split(jax.random.key(0), 3)
    qkv = [jax.random.normal(key, (2, n, 2, 64)) for key, n in zip(keys, (150, 77, 77), strict=True)]
    mask = jnp.arange(77)[None, None] < jnp.array([77, 5])[:, None, None]
    run = jax.jit(with_gradients(interpreted), in_shardings=(cut, whole, whole, batch))
    pairs = zip(run(*qkv, mask), jax.jit(with_gradients(xla_attend))(*qkv, mask), strict=True)
    out.write_text(json.dumps([float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs]))


@pytest.mark.slow
def test_the_kernel_takes_queries_that_are_cut(tmp_path):
    done = call(splash, tmp_path / "errors", devices=2)
    assert done.status == 0, done.err
    assert max(json.loads((tmp_path / "errors").read_text())) < 2e-5


def test_the_axis_is_there_only_where_it_cuts_something():
    assert MeshConfig(-1, 2, 1, 2).sizes(8) == (2, 2, 1)
    assert make_mesh(MeshConfig(), jax.devices()[:1]).axis_names == AXES and SEQUENCE not in AXES
    with pytest.raises(UserError, match=r"sequence=3 does not divide 8 device\(s\)"):
        MeshConfig(-1, 1, 1, 3).sizes(8)


def test_tokens_that_do_not_divide_are_refused():
    mesh = AbstractMesh((1, 1, 1, 5), (*AXES, SEQUENCE), (AxisType.Auto,) * 4)
    tokens = jax.ShapeDtypeStruct((2, 48, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    with pytest.raises(UserError, match=r"clips of 48 tokens do not divide over mesh\.sequence=5: use a divisor"):
        jax.eval_shape(constrain_to_sequence, tokens)
