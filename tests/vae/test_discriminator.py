"""The patch discriminator: its shapes, and a problem that it must solve."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.hinge import hinge_discriminator_loss, hinge_generator_loss
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.vae.losses.discriminator import PatchDiscriminator

SMALL = PatchDiscriminator((8, 16))


@pytest.fixture(scope="module")
def params() -> dict:
    return nn.unbox(jax.jit(lambda rng: init(SMALL, rng, jnp.zeros((1, 5, 16, 16, 3))))(jax.random.key(0)))


def real_clips(rng: jax.Array, count: int) -> jax.Array:
    """Smooth clips in [-1, 1]."""
    seeds = jax.random.uniform(rng, (count, 2, 3, 3, 3), minval=-1.0, maxval=1.0)
    return jax.image.resize(seeds, (count, 5, 16, 16, 3), "linear")


def fake_clips(rng: jax.Array, count: int) -> jax.Array:
    return jax.random.uniform(rng, (count, 5, 16, 16, 3), minval=-1.0, maxval=1.0)


@pytest.mark.parametrize(("clip", "patches"), [((9, 32, 32), (9, 4, 4)), ((1, 64, 48), (1, 8, 6))])
def test_there_is_one_logit_per_patch(clip, patches):
    network, video = PatchDiscriminator(), jnp.zeros((2, *clip, 3))
    boxed = jax.eval_shape(lambda: init(network, jax.random.key(0), video))
    is_named = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    assert all(map(is_named, jax.tree.leaves(boxed, is_leaf=is_named)))
    assert jax.eval_shape(lambda params: apply(network, params, video), nn.unbox(boxed)).shape == (2, *patches)


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="36x32 do not divide by 8: give the discriminator fewer widths"):
        init(PatchDiscriminator(), jax.random.key(0), jnp.zeros((1, 1, 36, 32, 3)))


def test_a_few_steps_separate_smooth_clips_from_noise(params):
    optimizer = optax.adam(3e-3)

    def loss(params, rng):
        clips = jnp.concatenate([real_clips(rng, 4), fake_clips(rng, 4)])
        real, fake = jnp.split(apply(SMALL, params, clips), 2)
        return hinge_discriminator_loss(real, fake), real.min() - fake.max()

    @jax.jit
    def step(params, state, rng):
        gradient, margin = jax.grad(loss, has_aux=True)(params, rng)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, margin

    state = optimizer.init(params)
    margins = []
    for rng in jax.random.split(jax.random.key(1), 40):  # every batch is new
        params, state, margin = step(params, state, rng)
        margins.append(float(margin))
    assert margins[0] < 0 and min(margins[-5:]) > 0.5


def test_the_generators_gradient_reaches_every_pixel(params):
    video = fake_clips(jax.random.key(0), 1)
    gradient = jax.jit(jax.grad(lambda video: hinge_generator_loss(apply(SMALL, params, video))))(video)
    assert np.isfinite(gradient).all() and (np.abs(gradient).max(axis=-1) > 0).all()
