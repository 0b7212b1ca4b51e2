"""Kinds of self-attention: parallel and streaming forms, causality, positions, padding."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.attention.config import KIND_NAMES, Chunks, check_kind
from mobile_video_jax.nn.attention.kinds import KINDS
from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.embeddings import rope_table
from tests.nets import normal, randomly

FRAMES, SIDE, WIDTH = 5, 4, 12
CAUSAL = Chunks(window=2, cell=(1, 2, 2), causal=True)
# All that `linear` computes is in `lcha` as well.
SLOW = [pytest.param("linear", marks=pytest.mark.slow)]
kinds = pytest.mark.parametrize("kind", [*(kind for kind in KINDS if kind != "linear"), *SLOW])


def layer(kind: str, chunks: Chunks, frames: int = FRAMES, dtype: str = "float32"):
    return KINDS[kind](2, 6, dtype=jnp.dtype(dtype), grid=(frames, SIDE, SIDE), chunks=chunks)


def rope(frames: int = FRAMES, first: int = 0):
    return rope_table((frames, SIDE, SIDE), 6, 100.0, first=first)


def params_of(kind: str) -> dict:
    module = layer(kind, CAUSAL)
    return randomly(jax.eval_shape(lambda x: module.init(jax.random.key(0), x, rope=rope())["params"], tokens()), 0.3)


def tokens(frames: int = FRAMES) -> jax.Array:
    return normal(0, 2, frames * SIDE * SIDE, WIDTH)


@partial(jax.jit, static_argnums=0, static_argnames="frames")
def stream(module, params, state, x, first, frames):
    """One call of a stream, which starts it where the state is empty."""
    return module.apply({"params": params, **state}, x, rope=rope(frames, first), mutable="stream")


@partial(jax.jit, static_argnums=0)
def whole(module, params, x, mask=None, first=0):
    return module.apply({"params": params}, x, rope=rope(len(x[0]) // SIDE**2, first), mask=mask)


@kinds
def test_any_chunking_of_a_stream_equals_the_whole_clip(kind):
    params = params_of(kind)
    expected = whole(layer(kind, CAUSAL), params, tokens())
    for splits in [(1, 3, 5), (3, 5)]:
        outputs, state = [], {}
        for start, stop in itertools.pairwise((0, *splits)):
            x = tokens()[:, start * SIDE**2 : stop * SIDE**2]
            out, state = stream(layer(kind, CAUSAL, stop - start), params, state, x, start, frames=stop - start)
            outputs.append(out)
        np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), expected, atol=1e-5, err_msg=str(splits))


@kinds
def test_causal_kinds_see_their_chunk_and_what_is_before(kind):
    params, module = params_of(kind), layer(kind, CAUSAL)

    def second_chunk(x):
        return jnp.sum(whole(module, params, x)[:, SIDE**2 : 3 * SIDE**2] ** 2)

    gradient = np.abs(jax.grad(second_chunk)(tokens())).reshape(2, FRAMES, -1).sum(axis=(0, 2))
    assert (gradient[:3] > 0).all() and (gradient[3:] == 0).all()


@kinds
@pytest.mark.parametrize("causal", [False, True])
def test_outputs_depend_on_relative_positions_alone(kind, causal):
    params, module = params_of(kind), layer(kind, dataclasses.replace(CAUSAL, causal=causal))
    out = whole(module, params, tokens())
    np.testing.assert_allclose(whole(module, params, tokens(), first=jnp.int32(5)), out, atol=1e-5)


@kinds
@pytest.mark.parametrize("causal", [False, True])
def test_padding_has_no_influence(kind, causal):
    """A clip of 3 frames, padded to 5, gives what it gives alone, whatever the padding holds."""
    params, chunks = params_of(kind), dataclasses.replace(CAUSAL, causal=causal)
    x = tokens()
    valid = jnp.arange(x.shape[1]) < 3 * SIDE**2
    garbage = jnp.where(valid[:, None], x, 1e3)
    out = whole(layer(kind, chunks), params, garbage, jnp.stack([valid[None]] * 2))[:, : 3 * SIDE**2]
    np.testing.assert_allclose(out, whole(layer(kind, chunks, 3), params, x[:, : 3 * SIDE**2]), atol=1e-5)


def test_every_kind_that_a_config_may_name_has_a_module():
    assert tuple(KINDS) == KIND_NAMES


def test_full_equals_plain_attention_to_the_bit():
    params = params_of("full")
    plain = jax.jit(lambda p, x: Attention(2, 6).apply({"params": p}, x, rope=rope()))
    np.testing.assert_array_equal(whole(layer("full", Chunks()), params, tokens()), plain(params, tokens()))


@pytest.mark.parametrize("kind", ["full", "chunked"])
def test_a_window_over_the_whole_clip_equals_full_attention(kind):
    """With one chunk and all weights on softmax both windowed kinds are softmax attention."""
    params = params_of(kind)
    one_frame = tokens(1)
    expected = whole(layer("full", Chunks(), 1), params_of("full") | _shared(params), one_frame)
    np.testing.assert_allclose(whole(layer(kind, CAUSAL, 1), params, one_frame), expected, atol=1e-5)


def _shared(params: dict) -> dict:
    return {name: value for name, value in params.items() if not name.endswith("features")}


@pytest.mark.parametrize(
    "kind", ["chunked", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("lcha", "ssa", "assa"))]
)
def test_two_hundred_chunks_in_half_precision_stay_finite_with_a_state_of_constant_size(kind):
    params = params_of(kind)
    state, module, sizes = {}, layer(kind, CAUSAL, 2, "bfloat16"), set()
    _, state = stream(layer(kind, CAUSAL, 1, "bfloat16"), params, {}, tokens(1), 0, frames=1)
    for i in range(200):
        out, state = stream(module, params, state, tokens(2), jnp.int32(1 + 2 * i), frames=2)
        sizes.add(sum(x.nbytes for x in jax.tree.leaves(state)))
    assert np.isfinite(np.asarray(out, np.float32)).all() and len(sizes) == 1


def test_unknown_kinds_and_grids_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="kind 'cubic' is unknown: use one of full, linear, lcha, ssa, chunked, assa"):
        check_kind("cubic")
    with pytest.raises(UserError, match="stride of 2 does not divide the 3x4 tokens"):
        Chunks().check("ssa", (3, 3, 4))
    with pytest.raises(UserError, match="chunks of 2 latent frames do not divide the 3 after the first"):
        Chunks().check("chunked", (4, 4, 4))
    with pytest.raises(UserError, match="cells of 1x4x4 do not divide the 3x6x4 frames, rows and columns of tokens"):
        Chunks().check("assa", (3, 6, 4))
