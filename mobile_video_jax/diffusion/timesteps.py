"""Times of training and sampling: distributions, shifts and grids, in [0, 1] from data to noise."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng, Times


def shift_times(t: Times, shift: float) -> Times:
    """t <- s t / (1 + (s - 1) t): a shift above 1 moves times toward noise (arXiv 2403.03206, section 5.3.2)."""
    return shift * t / (1 + (shift - 1) * t)


def token_shift(
    tokens: int, *, base_tokens: int = 1024, base_mu: float = 0.95, max_tokens: int = 4096, max_mu: float = 2.05
) -> float:
    """The `shift` of shift_times for a clip of `tokens` tokens: exp(mu), with mu linear through both anchors.

    Longer clips need more noise to hide the same structure (arXiv 2403.03206, section 5.3.2). The line is
    calculate_shift of diffusers' Flux and LTX pipelines, the anchors those of LTX-Video's scheduler config.
    """
    slope = (max_mu - base_mu) / (max_tokens - base_tokens)
    return math.exp(base_mu + slope * (tokens - base_tokens))


def sample_times(rng: Rng, count: int, *, shift: float) -> Times:
    """Samples logit-normal(0, 1) times, sigmoid(n), then shifts them (arXiv 2403.03206, section 3.1)."""
    return shift_times(jax.nn.sigmoid(jax.random.normal(rng, (count,))), shift)


def stratified_times(count: int, *, shift: float) -> Times:
    """Quantiles of sample_times' distribution at (i + 1/2) / count, for a validation loss without sampling noise."""
    quantiles = (jnp.arange(count) + 0.5) / count
    return shift_times(jax.nn.sigmoid(jax.scipy.stats.norm.ppf(quantiles)), shift)


def uniform(steps: int) -> Float[Array, "{steps}+1"]:
    """Times at equal distances."""
    return jnp.linspace(1.0, 0.0, steps + 1)


def linear_quadratic(steps: int, *, slow: float = 0.025) -> Float[Array, "{steps}+1"]:
    """Half of the steps remove `slow` of the noise, at equal distances; a parabola that joins smoothly the rest.

    From MovieGen (arXiv 2410.13720, section 3.4.2), as in LTX-Video's schedulers/rf.py.
    """
    half, i = steps // 2, np.arange(steps + 1)
    if not half:
        return uniform(steps)
    slope, rest = slow / half, steps - half
    curve = (1 - slope * steps) / rest**2
    return jnp.asarray(1 - slope * i - curve * np.maximum(i - half, 0) ** 2, jnp.float32)


def thousandth(steps: int) -> Float[Array, "{steps}+1"]:
    """Times at equal distances that would end at 0.001, the last 0: the flow sigmas of diffusers' multistep solvers."""
    return jnp.linspace(1.0, 1e-3, steps + 1).at[-1].set(0.0)


SCHEDULES: dict[str, Callable[[int], Float[Array, "n"]]] = {
    "uniform": uniform,
    "linear_quadratic": linear_quadratic,
    "thousandth": thousandth,
}


def listed_times(times: Sequence[float]) -> Float[Array, "n"]:
    """The grid of steps that start at these times; the last ends at 0."""
    return jnp.asarray([*times, 0.0], jnp.float32)


def time_grid(steps: int, *, shift: float, terminal: float = 0.0, schedule: str = "uniform") -> Float[Array, "n"]:
    """The steps + 1 times of a sampler, from 1 (noise) to 0 (data): a schedule's, shifted.

    With `terminal` above 0 they are stretched so that the last of several steps starts at it: 1 - t is scaled
    (LTX-Video's schedulers/rf.py; shift_terminal of diffusers' FlowMatchEulerDiscreteScheduler).
    """
    grid = shift_times(SCHEDULES[schedule](steps), shift)
    if not terminal or steps == 1:
        return grid
    done = 1 - grid[:-1]
    return jnp.append(1 - done * (1 - terminal) / done[-1], 0.0)
