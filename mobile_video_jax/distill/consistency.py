"""Continuous-time consistency distillation: the x0 prediction stays the same along the teacher's path to noise."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents, Times
from mobile_video_jax.diffusion.path import Velocity
from mobile_video_jax.distill.distances import mean_square

TANGENT_C = 0.1  # c of sCM's normalised tangent


def consistency_loss(
    student: Velocity, teacher: Velocity, x_t: Latents, t: Times, mask: LatentMask | None = None
) -> Float[Array, "b"]:
    """Loss of each clip: (F - sg(F + g / (|g| + c)))^2, with g = df/dt for f = x_t - t F, F the student's velocity.

    sCM (arXiv 2410.11081) on the straight path, without its change of the times: along the teacher's velocity v,
    df/dt = v - F - t dF/dt, and dF/dt is one forward-mode derivative of the student. |g| is a clip's root mean square.
    """
    v = jax.lax.stop_gradient(teacher(x_t, t))
    velocity, derivative = jax.jvp(student, (x_t, t), (v, jnp.ones_like(t)))
    tangent = jax.lax.stop_gradient(v - velocity - t[:, None, None, None, None] * derivative)
    size = jnp.sqrt(mean_square(tangent, jnp.zeros_like(tangent), mask))[:, None, None, None, None]
    target = jax.lax.stop_gradient(velocity) + tangent / (size + TANGENT_C)
    return mean_square(velocity, target, mask)
