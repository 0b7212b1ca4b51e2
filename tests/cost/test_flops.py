"""Counts against formulas of the shapes, and against XLA's own."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, PartitionSpec

from configs import dit
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.cost.flops import count_flops, flops_by_part, largest_products, parameters_by_part
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.nn.attention.layer import attend
from mobile_video_jax.parallel.mesh import AXES
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage


def stage(variant: str) -> DitStage:
    return DitStage(from_mapping(DitTraining, dit.get_config(variant).to_dict()))


def test_products_convolutions_and_scans_are_counted():
    def function(x, w):
        return jax.lax.scan(lambda carry, _: (carry @ w, None), x, length=5)[0]

    assert sum(count_flops(function, jnp.zeros((3, 4)), jnp.zeros((4, 4))).values()) == 5 * 2 * 3 * 4 * 4
    conv = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert sum(count_flops(conv, jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))).values()) == 2 * 2 * 64 * 27 * 5


def test_the_papers_models_have_its_sizes():
    """Server 2.0 B within 5 %, mobile 0.9 B within 8 %; block stacks of 1.879 B and 0.923 B (paper arithmetic)."""
    server, mobile = stage("server").inspect(), stage("mobile").inspect()
    assert server["tokens"] == mobile["tokens"] == 1344
    assert server["parameters"]["total"] == pytest.approx(2.0e9, rel=0.05)
    assert mobile["parameters"]["total"] == pytest.approx(0.9e9, rel=0.08)
    for costs, stack in ((server, 1.879e9), (mobile, 0.923e9)):
        parts = ("self_attention_projections", "cross_attention_projections", "ffn")
        assert sum(costs["parameters"][part] for part in parts) == pytest.approx(stack, rel=0.002)
    assert server["flops"]["total"] == pytest.approx(4.89e12, rel=0.02)


def test_products_of_attention_count_once_where_tpus_have_a_kernel():
    device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    mesh = AbstractMesh((1, 1, 1), AXES, (AxisType.Auto,) * len(AXES), abstract_device=device)
    q = jax.ShapeDtypeStruct((4, 256, 4, 64), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec()))
    assert "splash" in str(jax.make_jaxpr(attend)(q, q, q))
    assert sum(count_flops(attend, q, q, q).values()) == 4 * 4 * 256 * 256 * 4 * 64


def test_parts_are_the_first_names_of_modules():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(5, name="second")(nn.Dense(3, name="first", use_bias=False)(x))

    x = jnp.zeros((2, 7))
    params = Pair().init(jax.random.key(0), x)["params"]
    forward = lambda params, x: Pair().apply({"params": params}, x)
    assert parameters_by_part(params) == {"total": 21 + 20, "first": 21, "second": 20}
    assert flops_by_part(forward, params, x) == {"total": 84 + 60, "first": 84, "second": 60}
    assert largest_products(forward, params, x) == {"first": 4 * 6, "second": 4 * 10}
    assert largest_products(forward, params, x, part_of=lambda path: "all") == {"all": 4 * 10}


def test_flops_agree_with_xla_on_an_unscanned_model():
    # Wide enough that what neither count shares, the element-wise work, is small.
    model = DitConfig(width=512, depth=2, heads=8, head_dim=64, ffn=2048)
    tiny = DitStage(dataclasses.replace(stage("tiny").config, model=model))
    params = nn.unbox(jax.eval_shape(tiny.init, jax.random.key(0)))
    inputs = tiny.denoiser.input_shapes(4)
    args = (params, inputs["latents"], jax.ShapeDtypeStruct((4,), jnp.float32), inputs["text"], inputs["text_mask"])
    forward = lambda p, *x: tiny.denoiser.network.apply({"params": p}, *x)
    xla = jax.jit(forward).lower(*args).compile().cost_analysis()["flops"]
    assert flops_by_part(forward, *args)["total"] == pytest.approx(xla, rel=0.02)
