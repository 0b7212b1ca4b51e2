"""Two experts, networks of one shape that share the times: one for much noise, one for little (Wan 2.2, A14B)."""

import jax

from mobile_video_jax.core.arrays import Latents, Times
from mobile_video_jax.diffusion.path import Velocity

ROUNDING = 1e-5  # of a time in float32 that stands for a whole thousandth


def by_time(high: Velocity, low: Velocity, *, boundary: float) -> Velocity:
    """The velocity of `high` at times from `boundary` up, of `low` below it; a batch has one time.

    Only the chosen one is computed.
    """

    def velocity(x_t: Latents, t: Times) -> Latents:
        chosen: Latents = jax.lax.cond(t[0] >= boundary - ROUNDING, high, low, x_t, t)
        return chosen

    return velocity
