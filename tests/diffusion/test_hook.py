"""The samplers' hook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.diffusion.samplers import SOLVERS, sample
from tests.diffusion.toy import clips, exact_velocity

VELOCITY = exact_velocity(0.5, 0.3)


def of_no_strength(x_t, t, velocity, aux):
    error = lambda x: jnp.sum((x - velocity(x, jnp.full(x.shape[:1], t))) ** 2)
    return x_t - 0.0 * jax.grad(error)(x_t)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_hook_of_no_strength_is_plain_sampling_to_the_bit(solver):
    plain = jax.jit(lambda x: sample(VELOCITY, x, steps=4, solver=solver))(clips(0))
    hooked = jax.jit(lambda x: sample(VELOCITY, x, steps=4, solver=solver, hook=of_no_strength))(clips(0))
    np.testing.assert_array_equal(plain, hooked)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_change_in_the_last_step_reaches_the_clip_and_each_step_has_its_aux(solver):
    last = jnp.arange(4) == 3

    def replace(x_t, t, velocity, aux):
        return jnp.where(aux["last"], aux["x"] * t, x_t)

    aux = {"last": last, "x": jnp.arange(4.0)}
    moved = sample(lambda x, t: jnp.zeros_like(x), clips(0), steps=4, solver=solver, hook=replace, aux=aux)
    np.testing.assert_allclose(moved, 3 * 0.25, rtol=1e-5)
