"""Guidance against plain loops, and caption dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.guidance import Guidance, drop_captions, guided, null_text
from mobile_video_jax.diffusion.samplers import sample
from tests.diffusion.toy import clips
from tests.nets import normal

TEXT, MASK = normal(4, 2, 3, 4), jnp.array([[True, True, False]] * 2)
NEGATIVE = normal(5, 2, 3, 4), jnp.array([[True, False, False]] * 2)
X = clips(6)


def network(x_t, t, text, mask):
    strength = jnp.sum(text * mask[..., None], axis=(1, 2))
    return strength[:, None, None, None, None] * x_t + jnp.sin(3 * x_t)


def by_hand(t, guidance, null):
    """guided, clip by clip in x0."""
    conditional, unconditional = network(X, t, TEXT, MASK), network(X, t, *null)
    velocities = []
    for x, time, v, v_null in zip(*map(np.asarray, (X, t, conditional, unconditional)), strict=True):
        if guidance.low <= time <= guidance.high:
            x0_text, x0_null = x - time * v, x - time * v_null
            x0 = x0_null + guidance.scale * (x0_text - x0_null)
            x0 = guidance.rescale * x0 * x0_text.std() / x0.std() + (1 - guidance.rescale) * x0
            v = (x - x0) / time
        velocities.append(v)
    return np.stack(velocities)


@pytest.mark.parametrize("negative", [None, NEGATIVE], ids=["null", "negative"])
@pytest.mark.parametrize("t", [(0.1, 0.9), (0.1, 0.5), (0.3, 0.5)], ids=["outside", "half", "inside"])
@pytest.mark.parametrize(
    "guidance", [Guidance(4.0), Guidance(4.0, 0.2, 0.6), Guidance(4.0, rescale=0.7), Guidance(4.0, 0.2, 0.6, 1.0)]
)
def test_guidance_equals_a_loop_over_clips(guidance, t, negative):
    t = jnp.array(t)
    expected = by_hand(t, guidance, negative or null_text(TEXT, MASK))
    np.testing.assert_allclose(guided(network, TEXT, MASK, guidance, negative)(X, t), expected, rtol=1e-4, atol=1e-4)


def test_scale_one_is_the_plain_model():
    velocity = guided(network, TEXT, MASK, Guidance(1.0, rescale=0.5), NEGATIVE)
    np.testing.assert_array_equal(velocity(X, jnp.ones(2)), network(X, jnp.ones(2), TEXT, MASK))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_defaults_are_plain_guidance_to_the_bit(solver):
    null = null_text(TEXT, MASK)
    text, mask = jnp.concatenate([TEXT, null[0]]), jnp.concatenate([MASK, null[1]])

    def plain(x_t, t):
        both = network(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), text, mask)
        conditional, unconditional = jnp.split(both, 2)
        return unconditional + 4.0 * (conditional - unconditional)

    expected, actual = (
        jax.jit(lambda x, velocity=velocity: sample(velocity, x, steps=4, solver=solver))(X)
        for velocity in (plain, guided(network, TEXT, MASK, Guidance(4.0)))
    )
    np.testing.assert_array_equal(actual, expected)


def test_the_null_pass_is_skipped_outside_the_interval():
    batches = []

    def counting(x_t, t, text, mask):
        batches.append(len(x_t))
        return network(x_t, t, text, mask)

    with jax.disable_jit():
        sample(guided(counting, TEXT, MASK, Guidance(4.0, 0.4, 0.8)), X, steps=4)
    assert batches == [2, 4, 4, 2]


def test_full_rescale_gives_x0_the_conditional_spread_and_is_continuous_at_data():
    velocity = guided(network, TEXT, MASK, Guidance(4.0, rescale=1.0))
    t = jnp.full(2, 0.5)
    spread = lambda v: np.std(X - 0.5 * v, axis=(1, 2, 3, 4))
    np.testing.assert_allclose(spread(velocity(X, t)), spread(network(X, t, TEXT, MASK)), rtol=1e-5)
    np.testing.assert_allclose(velocity(X, jnp.zeros(2)), velocity(X, jnp.full(2, 2e-3)), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 0.7, "high": 0.3}, "acts from low to high times, not from 0.7 to 0.3"),
        ({"low": -0.1}, "low=-0.1: use a number from 0 to 1"),
        ({"high": 1.1}, "high=1.1: use a number from 0 to 1"),
        ({"rescale": 1.5}, "rescale=1.5: use a number from 0 to 1"),
        ({"scale": float("nan")}, "scale=nan: use a number from 0 to 100"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Guidance(**({"scale": 4.0} | settings))


def test_caption_dropout_replaces_the_given_share():
    text, mask = jnp.ones((4000, 3, 2)), jnp.ones((4000, 3), bool)
    dropped_text, dropped_mask = drop_captions(jax.random.key(0), text, mask, 0.25)
    dropped = np.asarray(dropped_text).sum(axis=(1, 2)) == 0
    assert 0.22 < dropped.mean() < 0.28
    np.testing.assert_array_equal(np.asarray(dropped_mask).sum(axis=1), np.where(dropped, 1, 3))


def test_no_caption_has_the_state_of_the_empty_text_if_known():
    empty = np.arange(1.0, 1.0 + TEXT.shape[-1], dtype=np.float32)
    states, mask = null_text(TEXT, MASK, empty)
    np.testing.assert_array_equal(states[:, 0], np.broadcast_to(empty, states[:, 0].shape))
    assert not np.asarray(states[:, 1:]).any() and np.asarray(mask).sum(axis=1).tolist() == [1] * len(mask)
    states_only, _ = drop_captions(jax.random.key(0), TEXT, MASK, 1.0, empty)
    np.testing.assert_array_equal(states_only, states)
