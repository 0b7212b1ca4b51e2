"""Distribution matching distillation (DMD, arXiv 2311.18828; DMD2, arXiv 2405.14867): direction and losses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents, Rng, Scalar, Times
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import Velocity, flow_matching_loss, interpolate, predict_x0, velocity_target
from mobile_video_jax.diffusion.timesteps import shift_times
from mobile_video_jax.distill.distances import mean_square

MIN_ERROR = 1e-3  # keeps the scale finite where teacher and student agree everywhere
FIRST, LAST = 0.02, 0.98  # times of the comparison: at the very ends one of the scores says nothing


def matching_losses(
    teacher: Velocity, critic: Velocity, x0: Latents, rng: Rng, *, shift: float, mask: LatentMask | None = None
) -> tuple[Scalar, Scalar]:
    """The student's matching loss on its clips x0, and the critic's flow matching loss on them.

    Both at the same noise and times, uniform before their shift. `x0` has no gradient in the second, and the networks
    none in the first.
    """
    constant = jax.lax.stop_gradient(x0)
    t = matching_times(named_key(rng, "times"), x0.shape[0], shift)
    noise = jax.random.normal(named_key(rng, "noise"), x0.shape)
    y = interpolate(constant, noise, t)
    fake, real = critic(y, t), teacher(y, t)
    direction = matching_direction(constant, predict_x0(y, real, t), predict_x0(y, fake, t), mask)
    critic_loss = flow_matching_loss(fake, velocity_target(constant, noise), mask)
    return jnp.mean(matching_loss(x0, direction, mask)), jnp.mean(critic_loss)


def matching_times(rng: Rng, count: int, shift: float) -> Times:
    """Uniform times, shifted, from FIRST to LAST."""
    return jnp.clip(shift_times(jax.random.uniform(rng, (count,)), shift), FIRST, LAST)


def matching_direction(x0: Latents, real: Latents, fake: Latents, mask: LatentMask | None = None) -> Latents:
    """(x0_fake - x0_real) / mean |x0 - x0_real|: the gradient of the divergence from the teacher's distribution.

    `real` and `fake` are x0 predictions from one re-noised clip, by the teacher and by a critic trained on the
    student's clips. On the straight path their difference is that of the two scores times t^2 / (1 - t), a weight of
    times. Positions where `mask` is False are ignored.
    """
    where = None if mask is None else mask[..., None]
    error = jnp.mean(jnp.abs(x0 - real), axis=(1, 2, 3, 4), keepdims=True, where=where)
    return (fake - real) / jnp.maximum(error, MIN_ERROR)


def matching_loss(x0: Latents, direction: Latents, mask: LatentMask | None = None) -> Float[Array, "b"]:
    """Loss of each clip whose gradient in x0 is `direction` over the number of values: mean (x0 - target)^2 / 2."""
    return mean_square(x0, jax.lax.stop_gradient(x0 - direction), mask) / 2
