"""The fused kernels of attention against plain operations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, PartitionSpec

from mobile_video_jax.nn.attention.kernels import KEY_SPEC, MASK_SPEC, blocks, kernels, splash_attend, splash_blocks
from mobile_video_jax.nn.attention.layer import attend, xla_attend
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import AXES, make_mesh
from tests.commands import call


def interpreted(*args):
    return splash_attend(*args, interpret=True)


def with_gradients(attention):
    """The function of q, k, v and a mask that gives the output and the gradients of q, k and v."""

    def run(q, k, v, mask):
        out, vjp = jax.vjp(lambda *qkv: attention(*qkv, mask), q, k, v)
        return out, *vjp(jnp.cos(out))

    return run


def inputs(n, m, head_dim):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (2, size, 2, head_dim)) for key, size in zip(keys, (n, m, m), strict=True)]


def key_mask(m, lengths):
    return (jnp.arange(m) < jnp.array(lengths)[:, None])[:, None]


@pytest.mark.parametrize(
    ("n", "m", "head_dim", "lengths", "dtype", "tolerance", "most"),
    [
        (600, 140, 64, (140, 3), jnp.float32, 2e-5, (512, 1536)),
        (130, 600, 128, (400, 600), jnp.bfloat16, 2e-2, (512, 256)),
        (128, 256, 64, None, jnp.float32, 2e-5, (512, 1536)),
        (1344, 1344, 64, (1344, 900), jnp.float32, 2e-5, (1408, 1408)),
    ],
)
def test_splash_equals_plain_operations(n, m, head_dim, lengths, dtype, tolerance, most):
    """Values and gradients, of rows with different numbers of keys, in several blocks; the reference is in float32."""
    qkv = [x.astype(dtype) for x in inputs(n, m, head_dim)]
    mask = None if lengths is None else key_mask(m, lengths)
    with splash_blocks(*most):
        ours = jax.jit(with_gradients(interpreted))(*qkv, mask)
    plain = jax.jit(with_gradients(xla_attend))(*(x.astype(jnp.float32) for x in qkv), mask)
    for our, expected in zip(ours, plain, strict=True):
        assert our.dtype == dtype
        np.testing.assert_allclose(our.astype(jnp.float32), expected, rtol=tolerance, atol=tolerance)


def test_masked_keys_have_no_influence_on_splash():
    q, k, v = inputs(128, 200, 64)
    mask = key_mask(200, (130, 7))
    poisoned = [jnp.where(mask[:, 0, :, None, None], x, 1e4) for x in (k, v)]
    run = jax.jit(interpreted)
    np.testing.assert_array_equal(run(q, k, v, mask), run(q, *poisoned, mask))


@pytest.mark.parametrize(
    ("length", "most", "block", "covered"),
    [(1, 512, 128, 128), (512, 512, 512, 512), (600, 512, 384, 768), (1344, 512, 512, 1536), (1344, 1536, 1408, 1408)],
)
def test_blocks_cover_a_length(length, most, block, covered):
    assert blocks(length, most) == (block, covered)


@pytest.mark.parametrize("lengths", [None, (77, 20)])
def test_on_a_cpu_attention_stays_plain(lengths):
    """To the bit and to the operation: the trace is the same."""
    qkv, mask = inputs(256, 77, 64), None if lengths is None else key_mask(77, lengths)
    logits = jnp.einsum("bnhd,bmhd->bhnm", *qkv[:2]).astype(jnp.float32) * 64**-0.5
    logits = logits if mask is None else jnp.where(mask[:, None], logits, -1e4)
    expected = jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(logits, axis=-1), qkv[2])
    np.testing.assert_array_equal(attend(*qkv, mask), expected)
    assert str(jax.make_jaxpr(attend)(*qkv, mask)) == str(jax.make_jaxpr(xla_attend)(*qkv, mask))


def lowered(sizes, mask=None):
    """The gradient of attention lowered for TPUs on this machine, as compiling ahead of time for a topology does."""
    device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    mesh = AbstractMesh(sizes, AXES, (AxisType.Auto,) * len(AXES), abstract_device=device)
    q = jax.ShapeDtypeStruct((4, 256, 4, 64), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec()))
    loss = lambda q, k, v: attend(q * 2, k, v, mask).astype(jnp.float32).sum()
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, q, q).lower(lowering_platforms=("tpu",)).as_text()


def test_compiling_for_tpus_takes_splash():
    for sizes in ((1, 1, 1), (2, 2, 2)):
        text = lowered(sizes)
        assert all(f"splash_mha_{part}" in text for part in ("fwd", "dkv")) and "splash_mha_dq" not in text
        assert "256x256" not in text, "the logits are there"
    assert "tpu_custom_call" in lowered((2, 2, 1), mask=jnp.ones((1, 1, 256), bool))


def test_what_splash_does_not_take_stays_plain():
    assert "tpu_custom_call" not in lowered((2, 2, 2), mask=jnp.ones((1, 256, 256), bool))
    assert "tpu_custom_call" not in lowered((8, 1, 1))
    assert "tpu_custom_call" not in lowered((1, 1, 8))


def test_on_the_cpu_of_a_tpu_host_attention_is_plain(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    qkv, mask = inputs(128, 77, 64), key_mask(77, (77, 20))
    run = jax.jit(with_gradients(attend))
    for ours, plain in zip(run(*qkv, mask), jax.jit(with_gradients(xla_attend))(*qkv, mask), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
    assert "splash_mha_fwd" in run.trace(*qkv, mask).lower(lowering_platforms=("tpu",)).as_text()


def print_differences_on_a_mesh() -> None:
    """Errors of splash on eight devices against plain operations on one, and the collectives of its program."""
    mesh = make_mesh(MeshConfig(2, 2, 2))
    sharded, batch = NamedSharding(mesh, KEY_SPEC), NamedSharding(mesh, MASK_SPEC)
    qkv = [jax.random.normal(jax.random.key(i), (4, n, 2, 64)) for i, n in enumerate((150, 77, 77))]
    mask = key_mask(77, (77, 5, 40, 76))
    expected = jax.jit(with_gradients(xla_attend))(*qkv, mask)
    run = jax.jit(with_gradients(interpreted), in_shardings=(sharded,) * 3 + (batch,), out_shardings=sharded)
    arguments = [jax.device_put(x, sharded) for x in qkv] + [jax.device_put(mask, batch)]
    errors = [float(np.abs(ours - plain).max()) for ours, plain in zip(run(*arguments), expected, strict=True)]
    text = run.lower(*arguments).compile().as_text()
    collectives = [name for name in ("all-gather", "all-to-all") if name in text]
    print(json.dumps({"errors": errors, "collectives": collectives}))


def test_splash_on_a_mesh_equals_plain_operations_without_collectives():
    done = call(print_differences_on_a_mesh, devices=8)
    assert done.status == 0, done.err
    report = json.loads(done.out.splitlines()[-1])
    assert max(report["errors"]) < 2e-5 and not report["collectives"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_the_loop_over_heads_equals_plain_operations(dtype, tolerance):
    qkv = inputs(150, 130, 16)
    mask = jnp.arange(130)[None, None] < jnp.array([130, 4])[:, None, None]
    assert set(kernels(qkv[0], qkv[1], mask)) == {"cpu"} and kernels(qkv[0], qkv[1][:, :77], mask[..., :77]) == {}
    expected = jax.jit(with_gradients(xla_attend))(*qkv, mask)
    outputs = jax.jit(with_gradients(attend))(*(x.astype(dtype) for x in qkv), mask)
    for ours, plain in zip(outputs, expected, strict=True):
        error = np.asarray(ours, np.float32) - plain
        assert np.linalg.norm(error) < tolerance * np.linalg.norm(plain)
