"""A guide to the right number of objects by cross-attention, after CountDiffusion."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.guidance import Guidance, guided
from mobile_video_jax.diffusion.path import Velocity, predict_x0
from mobile_video_jax.diffusion.samplers import euler_step
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.nn.module import apply
from mobile_video_jax.rewards.count_loss import Edit, count_loss, edit_of, object_maps
from mobile_video_jax.rewards.counter import Counter, CountGuide, passes, unit, wanted_count, word_position


@dataclasses.dataclass(frozen=True)
class AttentionGuide(CountGuide):
    """CountDiffusion (arXiv 2505.04347) for clips, by Euler steps.

    A first pass keeps its states, and the critic counts its x0 prediction at the time `counted_at`. Where the count is
    wrong, a second pass moves x_t at steps of times from `low` to `high` by the gradient of the cross-attention in the
    masks of count_loss.py; outside the dilated masks the first pass's states stay.
    """

    strength: float = 1.0
    counted_at: float = 0.5
    low: float = 0.5
    high: float = 0.95
    name: ClassVar[str] = "count_attention"

    def check(self, generator: Generator, requests: Sequence[Request], config: SampleConfig) -> None:
        super().check(generator, requests, config)
        generator.denoiser.check_cross_logits()
        special = config.reuse or config.boundary or config.path_drop
        if config.solver != "euler" or special or any(request.image for request in requests):
            raise UserError(
                "count_attention takes plain Euler steps of one network from text: leave out --solver, --reuse, "
                "--path_drop and --image, name no run of two experts"
            )
        for request in requests:
            word_position(generator, request.prompt)

    def latents(self, counter: Counter, requests: Sequence[Request], config: SampleConfig) -> Latents:
        generator = counter.generator
        noise, text, mask, negative, _ = generator.inputs(requests, config)
        words = np.array([word_position(generator, request.prompt) for request in requests])
        passes_of = _compiled_passes(self, generator, config)
        end, states, x0 = passes_of.first(generator.params, noise, text, mask, negative)
        counted = np.asarray(jnp.argmax(counter.compiled(x0), axis=1))
        clips = counter.clips(x0)
        grid = (x0.shape[1], x0.shape[2], x0.shape[3])
        wanted = [wanted_count(request.prompt) for request in requests]
        edits = [edit_of(*row, grid) for row in zip(clips, counted.tolist(), wanted, strict=True)]
        edit = Edit.of(edits)
        if not edit.sign.any() or not self.strength:
            return jnp.asarray(end)
        edited: Latents = passes_of.second(generator.params, noise, text, mask, negative, states, words, edit)
        chosen: Latents = jnp.where((edit.sign != 0)[:, None, None, None, None], edited, end)
        return chosen

    def evaluations(self, config: SampleConfig) -> float:
        return 2 * passes(config) + 3 * max(self.high - self.low, 0.0) * config.steps


@dataclasses.dataclass(frozen=True)
class _Passes:
    first: Any
    second: Any


@functools.cache
def _compiled_passes(guide: AttentionGuide, generator: Generator, config: SampleConfig) -> _Passes:
    denoiser, grid = generator.denoiser, generator.time_grid(config)
    counted = int(jnp.argmin(jnp.abs(grid[:-1] - guide.counted_at)))
    guidance = Guidance(config.guidance, config.guidance_low, config.guidance_high, config.guidance_rescale)

    def velocity_of(params: Any, text: Any, mask: Any, negative: Any) -> Velocity:
        return guided(functools.partial(apply, denoiser.network, params), text, mask, guidance, negative)

    @jax.jit
    def first(params: Any, noise: Latents, text: Any, mask: Any, negative: Any) -> Any:
        velocity = velocity_of(params, text, mask, negative)

        def body(x: Latents, times: Any) -> tuple[Latents, Latents]:
            return euler_step(velocity, x, *times), x

        end, states = jax.lax.scan(body, noise, (grid[:-1], grid[1:]))
        times = jnp.full(noise.shape[:1], grid[counted])
        return end, states, predict_x0(states[counted], velocity(states[counted], times), times)

    @jax.jit
    def second(
        params: Any, noise: Latents, text: Any, mask: Any, negative: Any, states: Any, words: Any, edit: Edit
    ) -> Latents:
        velocity = velocity_of(params, text, mask, negative)
        inside = jnp.asarray(edit.inside)[..., None]

        def loss(x: Latents, t: Any) -> Float[Array, ""]:
            _, logits = denoiser.velocity_and_cross_logits(params, x, t, text, mask)
            return jnp.sum(
                count_loss(object_maps(logits, words, (x.shape[1], x.shape[2], x.shape[3])), edit.mask, edit.sign)
            )

        def body(x: Latents, step: Any) -> tuple[Latents, None]:
            t, t_next, before = step
            times = jnp.full(x.shape[:1], t)
            moved = lambda x: x - guide.strength * jnp.sqrt(t) * unit(jax.grad(loss)(x, times))
            x = jax.lax.cond((guide.low <= t) & (t <= guide.high), moved, lambda x: x, x)
            return euler_step(velocity, jnp.where(inside, x, before), t, t_next), None

        return jax.lax.scan(body, noise, (grid[:-1], grid[1:], states))[0]

    return _Passes(first, second)
