"""Solvers of dx/dt = v(x, t) from noise at t = 1 to data at t = 0."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.hook import Hook, Scan, unchanged
from mobile_video_jax.diffusion.path import Velocity, interpolate, predict_x0
from mobile_video_jax.diffusion.timesteps import listed_times, time_grid
from mobile_video_jax.diffusion.unipc import unipc

# (velocity, x at the first time, falling times [points], hook, aux, scan) -> x at the last time. Each step starts from
# hook(x, t, velocity, aux) with the step's entry of the arrays [points-1 ...] in `aux`. `scan` runs the steps: another
# one than jax.lax.scan may carry what the velocity remembers (diffusion/carry.py).
Solver = Callable[..., Latents]


def euler_step(velocity: Velocity, x: Latents, t: jnp.ndarray, t_next: jnp.ndarray) -> Latents:
    """x + (t_next - t) v(x, t): first order, one evaluation."""
    return x + (t_next - t) * velocity(x, jnp.full(x.shape[:1], t))


def heun_step(velocity: Velocity, x: Latents, t: jnp.ndarray, t_next: jnp.ndarray) -> Latents:
    """The mean of the slopes at both ends of an Euler step: second order, two evaluations."""
    v = velocity(x, jnp.full(x.shape[:1], t))
    v_next = velocity(x + (t_next - t) * v, jnp.full(x.shape[:1], t_next))
    return x + (t_next - t) * 0.5 * (v + v_next)


def single_step_solver(step: Callable[..., Latents]) -> Solver:
    """The solver that repeats a step that needs no earlier steps."""

    def solve(
        velocity: Velocity,
        noise: Latents,
        grid: Float[Array, "points"],
        hook: Hook = unchanged,
        aux: Any = None,
        scan: Scan = jax.lax.scan,
    ) -> Latents:
        def body(x: Latents, inputs: tuple[jnp.ndarray, jnp.ndarray, Any]) -> tuple[Latents, None]:
            t, t_next, aux = inputs
            return step(velocity, hook(x, t, velocity, aux), t, t_next), None

        x: Latents = scan(body, noise, (grid[:-1], grid[1:], aux))[0]
        return x

    return solve


def dpmpp_2m(
    velocity: Velocity,
    noise: Latents,
    grid: Float[Array, "points"],
    hook: Hook = unchanged,
    aux: Any = None,
    scan: Scan = jax.lax.scan,
) -> Latents:
    """DPM-Solver++(2M), algorithm 2 of arXiv 2211.01095, for this path: second order, one evaluation a step.

    With alpha = 1 - t and sigma = t, the paper's alpha_next (1 - exp(-h)) is 1 - t_next / t. A step is then Euler's
    plus a multiple of the last change of the x0 prediction. Steps start at t > 0, so all terms are finite.
    """

    def body(carry: tuple[Latents, Latents], step: tuple[Any, ...]) -> tuple[tuple[Latents, Latents], None]:
        (x, x0_before), (t, t_next, weight, aux) = carry, step
        x = hook(x, t, velocity, aux)
        times = jnp.full(x.shape[:1], t)
        v = velocity(x, times)
        x0 = predict_x0(x, v, times)
        x_next = x + (t_next - t) * v + (1 - t_next / t) * weight * (x0 - x0_before)
        return (x_next, x0), None

    # The first step's weight is 0, so any finite x0_before will do.
    steps = grid[:-1], grid[1:], extrapolation_weights(grid), aux
    x: Latents = scan(body, (noise, noise), steps)[0][0]
    return x


def extrapolation_weights(grid: Float[Array, "points"]) -> Float[Array, "points-1"]:
    """Each step's h / (2 h_before), h its length in lambda = log((1 - t) / t); 0, first order, for the first and last.

    At t = 1 lambda is -inf; h_before of the second step is then inf and its weight exactly 0, the formula's limit.
    At t = 0 lambda would be inf, but only the last step ends there.
    """
    lambdas = jnp.log1p(-grid[:-1]) - jnp.log(grid[:-1])
    h = jnp.diff(lambdas)
    return jnp.zeros_like(lambdas).at[1:-1].set(h[1:] / (2 * h[:-1]))


def renoise(
    velocity: Velocity,
    noise: Latents,
    grid: Float[Array, "points"],
    hook: Hook = unchanged,
    aux: Any = None,
    scan: Scan = jax.lax.scan,
) -> Latents:
    """Predicts x0 and noises it afresh to the next time: the sampler of consistency models (arXiv 2303.01469, alg. 1).

    For students that were trained for it: the noise of one step is not that of the next.
    """

    def body(x: Latents, step: tuple[Any, ...]) -> tuple[Latents, None]:
        t, t_next, i, aux = step
        x = hook(x, t, velocity, aux)
        times = jnp.full(x.shape[:1], t)
        x0 = predict_x0(x, velocity(x, times), times)
        return interpolate(x0, fresh_noise(noise, i), jnp.full_like(times, t_next)), None

    x: Latents = scan(body, noise, (grid[:-1], grid[1:], jnp.arange(grid.shape[0] - 1), aux))[0]
    return x


def fresh_noise(noise: Latents, step: jnp.ndarray) -> Latents:
    """Standard normal noise for a later step of each clip.

    Its key is the bits of the last value of the clip's first noise, so that a clip does not depend on its batch.
    """

    def of_clip(bits: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(jax.random.key(bits), step), noise.shape[1:])

    bits = jax.lax.bitcast_convert_type(noise[:, -1, -1, -1, -1].astype(jnp.float32), jnp.uint32)
    return jax.vmap(of_clip)(bits).astype(noise.dtype)


SOLVERS: dict[str, Solver] = {
    "euler": single_step_solver(euler_step),
    "heun": single_step_solver(heun_step),
    "dpmpp_2m": dpmpp_2m,
    "renoise": renoise,
    "unipc": unipc,
}


def sample(
    velocity: Velocity,
    noise: Latents,
    *,
    steps: int,
    shift: float = 1.0,
    solver: str = "euler",
    terminal: float = 0.0,
    schedule: str = "uniform",
    times: Sequence[float] = (),
    hook: Hook = unchanged,
    aux: Any = None,
    scan: Scan = jax.lax.scan,
) -> Latents:
    """Integrates from noise to data over time_grid's times, or in steps that start at `times`.

    `hook` may change x_t where a step starts, with the step's entry of `aux`; `scan` runs the steps. Raises UserError
    for an unknown solver or no steps.
    """
    if solver not in SOLVERS:
        raise UserError(f"sampler '{solver}' is unknown; choose one of {', '.join(SOLVERS)}")
    if steps < 1:
        raise UserError(f"steps must be 1 or more, not {steps}")
    grid = time_grid(steps, shift=shift, terminal=terminal, schedule=schedule)
    return SOLVERS[solver](velocity, noise, listed_times(times) if times else grid, hook, aux, scan)
