"""Given first frames: what stands, what moves, and what the model is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.diffusion.conditioning import (
    condition_on_first_frame,
    frame_times,
    freeze_first_frame,
    insert_first_frame,
)
from mobile_video_jax.diffusion.guidance import Guidance, guided
from mobile_video_jax.diffusion.samplers import SOLVERS, sample

SHAPE = (2, 3, 2, 2, 4)
NOISE, FIRST = jax.random.normal(jax.random.key(0), SHAPE), jax.random.normal(jax.random.key(1), (2, 1, *SHAPE[2:]))
TEXT, MASK = jax.random.normal(jax.random.key(2), (2, 3, 4)), jnp.array([[True, True, False]] * 2)
GIVEN = jnp.array([True, False])
GUIDANCES = [Guidance(1.0), Guidance(4.0), Guidance(4.0, rescale=0.7), Guidance(4.0, 0.2, 0.6, 0.7)]


def denoiser(x_t, t, text, mask):
    """Moves everything, in a way that depends on the text, on the other frames and on each frame's time."""
    strength = jnp.sum(text * mask[..., None], axis=(1, 2))[:, None, None, None, None]
    time = jnp.broadcast_to(t.reshape(t.shape[0], -1), x_t.shape[:2])[..., None, None, None]
    return jnp.sin(3 * x_t) + 0.1 * strength * x_t + jnp.mean(x_t, axis=1, keepdims=True) + time


def draw(guidance, solver, first=None, given=GIVEN):
    if first is None:
        return sample(guided(denoiser, TEXT, MASK, guidance), NOISE, steps=4, shift=2.0, solver=solver)
    velocity = freeze_first_frame(guided(condition_on_first_frame(denoiser, given), TEXT, MASK, guidance), given)
    return sample(velocity, insert_first_frame(NOISE, first, given), steps=4, shift=2.0, solver=solver)


def test_given_frames_are_at_time_0_and_the_others_at_their_clips():
    times = frame_times(jnp.array([0.5, 0.75]), 3, GIVEN)
    np.testing.assert_array_equal(times, [[0, 0.5, 0.5], [0.75, 0.75, 0.75]])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_a_given_frame_stands_to_the_bit_and_the_rest_goes_on_from_it(guidance, solver):
    drawn, other = (draw(guidance, solver, first) for first in (FIRST, FIRST + 1))
    np.testing.assert_array_equal(drawn[0, 0], FIRST[0, 0])
    assert (jnp.abs(drawn - other)[0, 1:] > 1e-3).all()
    assert (jnp.abs(drawn[0, 1:] - NOISE[0, 1:]) > 1e-3).mean() > 0.9


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_a_clip_without_an_image_is_drawn_as_ever(guidance, solver):
    plain = draw(guidance, solver)
    np.testing.assert_allclose(draw(guidance, solver, FIRST)[1], plain[1], rtol=1e-5, atol=1e-5)
    none = draw(guidance, solver, FIRST, jnp.zeros(2, bool))
    np.testing.assert_allclose(none, plain, rtol=1e-5, atol=1e-5)


def test_both_passes_of_guidance_see_the_frame_and_its_time():
    seen = []

    def watching(x_t, t, text, mask):
        seen.append((x_t[:, 0], t[:, 0]))
        return denoiser(x_t, t, text, mask)

    velocity = guided(condition_on_first_frame(watching, GIVEN), TEXT, MASK, Guidance(4.0))
    velocity(insert_first_frame(NOISE, FIRST, GIVEN), jnp.full(2, 0.5))
    frames, times = seen[0]
    np.testing.assert_array_equal(times, [0, 0.5, 0, 0.5])
    np.testing.assert_array_equal(frames, [FIRST[0, 0], NOISE[1, 0]] * 2)


def test_rescaled_guidance_compares_clips_whose_first_frame_is_the_given_one():
    # Were the model's velocity there counted, that of a frame at time 0, which nothing trains, would change the rest.
    wild = lambda x_t, t, text, mask: denoiser(x_t, t, text, mask).at[:, 0].mul(100.0)
    results = [
        guided(condition_on_first_frame(model, GIVEN), TEXT, MASK, Guidance(4.0, rescale=1.0))(NOISE, jnp.full(2, 0.5))
        for model in (denoiser, wild)
    ]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
