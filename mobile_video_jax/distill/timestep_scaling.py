"""Task and distillation losses in a balance that follows the time (SnapGen, arXiv 2412.09619).

S(task, kd) = a_t task + (1 - a_t) |task| / |kd| kd: at middle times the student learns from data, at both ends from its
teacher, and neither loss drowns the other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import FrameTimes

Losses = Float[Array, "b"]

# Limits of |task| / |kd|, which would grow without bound as the student comes near its teacher.
RATIOS = (0.1, 10.0)
EPS = 1e-6  # from either end, where the logit is infinite


def task_share(t: FrameTimes) -> Losses:
    """a_t: the density of the logit-normal distribution at each clip's time over its largest, which is at 0.5."""
    latest = jnp.clip(jnp.max(t.reshape(t.shape[0], -1), axis=1), EPS, 1 - EPS)  # conditioning frames have time 0
    logit = jnp.log(latest) - jnp.log1p(-latest)
    return jnp.exp(-(logit**2) / 2) / (4 * latest * (1 - latest))


def balanced(task: Losses, distillation: Losses, share: Losses | float) -> Losses:
    """S of each clip, `share` being a_t. The ratio of the losses is a constant to the gradient, within RATIOS."""
    ratio = jax.lax.stop_gradient(jnp.clip(task / jnp.maximum(distillation, EPS), *RATIOS))
    return share * task + (1 - share) * ratio * distillation
