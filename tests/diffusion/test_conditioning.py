"""Conditioning frames: they stay, the others are generated, and the network sees their time 0."""

import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.diffusion.conditioning import (
    condition_on_first_frame,
    frame_times,
    hold_first_frame,
    insert_first_frame,
    noised_first_frame,
)
from mobile_video_jax.diffusion.guidance import Guidance, guided
from mobile_video_jax.diffusion.samplers import SOLVERS, sample
from tests.nets import normal

SHAPE = (2, 3, 2, 2, 4)
NOISE, FIRST = normal(0, *SHAPE), normal(1, 2, 1, *SHAPE[2:])
TEXT, MASK = normal(2, 2, 3, 4), jnp.array([[True, True, False]] * 2)
IMAGE = jnp.array([True, False])
GUIDANCES = [Guidance(1.0), Guidance(4.0), Guidance(4.0, rescale=0.7), Guidance(4.0, 0.2, 0.6, 0.7)]


def network(x_t, t, text, mask):
    """Moves everything, in a way that depends on the text, on the other frames and on each frame's time."""
    strength = jnp.sum(text * mask[..., None], axis=(1, 2))[:, None, None, None, None]
    time = jnp.broadcast_to(t.reshape(t.shape[0], -1), x_t.shape[:2])[..., None, None, None]
    return jnp.sin(3 * x_t) + 0.1 * strength * x_t + jnp.mean(x_t, axis=1, keepdims=True) + time


def generate(guidance, solver, first=None, conditioned=IMAGE):
    if first is None:
        return sample(guided(network, TEXT, MASK, guidance), NOISE, steps=4, shift=2.0, solver=solver)
    velocity = hold_first_frame(
        guided(condition_on_first_frame(network, conditioned), TEXT, MASK, guidance), first, conditioned
    )
    start = insert_first_frame(NOISE, first, conditioned)
    return insert_first_frame(sample(velocity, start, steps=4, shift=2.0, solver=solver), first, conditioned)


def test_conditioning_frames_have_time_0_and_the_others_their_clips():
    times = frame_times(jnp.array([0.5, 0.75]), 3, IMAGE)
    np.testing.assert_array_equal(times, [[0, 0.5, 0.5], [0.75, 0.75, 0.75]])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_a_conditioning_frame_stays_to_the_bit_and_the_others_depend_on_it(guidance, solver):
    samples, other = (generate(guidance, solver, first) for first in (FIRST, FIRST + 1))
    np.testing.assert_array_equal(samples[0, 0], FIRST[0, 0])
    assert (jnp.abs(samples - other)[0, 1:] > 1e-3).all()
    assert (jnp.abs(samples[0, 1:] - NOISE[0, 1:]) > 1e-3).mean() > 0.9


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_a_clip_without_an_image_is_generated_as_in_text_to_video(guidance, solver):
    plain = generate(guidance, solver)
    np.testing.assert_allclose(generate(guidance, solver, FIRST)[1], plain[1], rtol=1e-5, atol=1e-5)
    none = generate(guidance, solver, FIRST, jnp.zeros(2, bool))
    np.testing.assert_allclose(none, plain, rtol=1e-5, atol=1e-5)


def test_both_passes_of_guidance_see_the_frame_and_its_time():
    inputs = []

    def recording(x_t, t, text, mask):
        inputs.append((x_t[:, 0], t[:, 0]))
        return network(x_t, t, text, mask)

    velocity = guided(condition_on_first_frame(recording, IMAGE), TEXT, MASK, Guidance(4.0))
    velocity(insert_first_frame(NOISE, FIRST, IMAGE), jnp.full(2, 0.5))
    frames, times = inputs[0]
    np.testing.assert_array_equal(times, [0, 0.5, 0, 0.5])
    np.testing.assert_array_equal(frames, [FIRST[0, 0], NOISE[1, 0]] * 2)


def test_the_networks_velocity_at_a_conditioning_frame_has_no_effect():
    # Rescaling uses the spread of whole clips, and nothing trains the velocity of a frame at time 0.
    changed = lambda x_t, t, text, mask: network(x_t, t, text, mask).at[:, 0].mul(100.0)
    guidance, t = Guidance(4.0, rescale=1.0), jnp.full(2, 0.5)
    results = [
        guided(condition_on_first_frame(velocity, IMAGE), TEXT, MASK, guidance)(NOISE, t)
        for velocity in (network, changed)
    ]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)


def test_noise_in_the_frame_falls_with_the_time_squared_and_is_drawn_afresh():
    assert noised_first_frame(FIRST, NOISE, 0.0) is None
    noised = noised_first_frame(FIRST, NOISE, 0.5)
    early, late = ((noised(jnp.full(2, t)) - FIRST) / (0.5 * t**2) for t in (1.0, 0.2))
    assert early.shape == FIRST.shape and not np.allclose(early, late, atol=0.1)
    many = noised_first_frame(jnp.zeros((2, 1, 32, 32, 4)), normal(0, 2, 3, 32, 32, 4), 0.5)(jnp.full(2, 0.6))
    assert float(jnp.std(many)) == pytest.approx(0.5 * 0.36, rel=0.05)
