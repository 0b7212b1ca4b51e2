"""UniPC of second order (arXiv 2302.04867) for the straight path: a predictor, corrected by the next evaluation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.diffusion.hook import Hook, Scan, unchanged
from mobile_video_jax.diffusion.path import Velocity, predict_x0

LATEST = 1 - 1e-6  # at t = 1 the log of the signal-to-noise ratio is infinite

# The corrected latents before, the predicted ones, the last x0 prediction, and its last change.
Carry = tuple[Latents, Latents, Latents, Latents]


class Coefficients(NamedTuple):
    """Weights of one step, arrays of all steps; with h its length in lambda = log((1 - t) / t)."""

    ratio: Float[Array, "n"]  # t_next / t, of the latents; the rest, 1 - ratio, is of the x0 prediction
    change: Float[Array, "n"]  # h / h_before, of the last change of the x0 prediction; 0 in the first step
    predicted: Float[Array, "n"]  # 1/2 of that change in steps of second order, else 0
    corrected: Float[Array, "n"]  # weight of that change in the corrector
    corrected_next: Float[Array, "n"]  # weight of the change to the new x0 prediction in the corrector


def unipc(
    velocity: Velocity,
    noise: Latents,
    grid: Float[Array, "points"],
    hook: Hook = unchanged,
    aux: Any = None,
    scan: Scan = jax.lax.scan,
) -> Latents:
    """UniPC-2 with B(h) = exp(h) - 1, the first and the last step of first order, one evaluation a step.

    As diffusers' UniPCMultistepScheduler with flow sigmas, which evaluates the network at whole thousandths.
    """
    grid = jnp.minimum(grid, LATEST)
    steps = coefficients(grid)

    def body(carry: Carry, step: tuple[jnp.ndarray, Coefficients, Coefficients, Any]) -> tuple[Carry, None]:
        (before, x, x0_before, change), (t, own, last, aux) = carry, step
        predicted, x = x, hook(x, t, velocity, aux)
        times = jnp.full(x.shape[:1], t)
        x0 = predict_x0(x, velocity(x, jnp.floor(1000 * times) / 1000), times)
        correction = last.corrected * last.change * change + last.corrected_next * (x0 - x0_before)
        # A last.ratio of 0 marks the first step, which has nothing to correct.
        # Written as changes of x, so that positions whose velocity is 0 stay as they are, to the bit.
        corrected = before + (1 - last.ratio) * (x0_before - before + correction)
        if x is not predicted:  # the corrector keeps what the hook changed
            corrected = corrected + (x - predicted)
        x = jnp.where(last.ratio == 0, x, corrected)
        change = x0 - x0_before
        x_next = x + (1 - own.ratio) * (x0 - x + own.predicted * own.change * change)
        return (x, x_next, x0, change), None

    last = jax.tree.map(lambda x: jnp.append(0.0, x[:-1]), steps)
    zero = jnp.zeros_like(noise)
    carry: Carry = scan(body, (noise, noise, zero, zero), (grid[:-1], steps, last, aux))[0]
    return carry[1]


def coefficients(grid: Float[Array, "points"]) -> Coefficients:
    """The weights of every step of a falling grid that ends at 0 and starts below 1."""
    lambdas = jnp.log1p(-grid[:-1]) - jnp.log(grid[:-1])
    h = jnp.append(jnp.diff(lambdas), jnp.inf)
    count, step = len(h), jnp.arange(len(h))
    second = (step > 0) & (step < count - 1)
    decay = jnp.expm1(-h)
    change = jnp.where(second, h / jnp.append(1.0, h[:-1]), 0.0)
    # The corrector's two weights solve its order conditions (arXiv 2302.04867, eq. 10) at -1 / change and 1.
    length = jnp.where(jnp.isinf(h), 1.0, h)
    first = -(decay / length + 1) / decay
    moment = jnp.where(jnp.isinf(h), 0.0, 2 * ((decay / length + 1) / length - 0.5) / decay)
    ratio = jnp.where(second, -1 / jnp.where(second, change, 1.0), 0.0)
    weight = jnp.where(second, (first - moment) / (1 - ratio), 0.0)
    return Coefficients(
        ratio=grid[1:] / grid[:-1],
        change=change,
        predicted=0.5 * second,
        corrected=weight,
        corrected_next=jnp.where(second, first - weight, 0.5),
    )
