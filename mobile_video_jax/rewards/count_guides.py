"""Guides to the right number of objects by the critic alone: its gradient, or the best of several clips."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.diffusion.hook import Hook
from mobile_video_jax.diffusion.path import Velocity, predict_x0
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.rewards.counter import Counter, CountGuide, passes, unit, wanted_count

SEED_STEP = 1_000_003  # between the seeds of several clips for one request


@dataclasses.dataclass(frozen=True)
class BestOf(CountGuide):
    """The baseline: of several clips from other noise the one that the critic most believes to have the number."""

    clips: int = 2
    name: ClassVar[str] = "count_best"

    def latents(self, counter: Counter, requests: Sequence[Request], config: SampleConfig) -> Latents:
        wanted = jnp.asarray([wanted_count(request.prompt) for request in requests])
        best, score = None, jnp.full(len(requests), -jnp.inf)
        for i in range(self.clips):
            seeds = [(request.seed + i * SEED_STEP) % 2**32 for request in requests]
            others = [dataclasses.replace(r, seed=seed) for r, seed in zip(requests, seeds, strict=True)]
            latents = counter.generator.latents(others, config)
            log_p = jnp.take_along_axis(counter.compiled(latents), wanted[:, None], axis=1)[:, 0]
            better = log_p > score
            best = latents if best is None else jnp.where(better[:, None, None, None, None], latents, best)
            score = jnp.where(better, log_p, score)
        assert best is not None
        return best

    def evaluations(self, config: SampleConfig) -> float:
        return float(self.clips * passes(config))


@dataclasses.dataclass(frozen=True)
class CriticGuide(CountGuide):
    """x_t <- x_t - strength sqrt(t) g / rms(g), with g the gradient of -log p(number) of the decoded x0 prediction.

    It acts at times from `low` to `high`; in the rest of a clip's steps it costs nothing.
    """

    strength: float = 0.1
    low: float = 0.2
    high: float = 0.9
    name: ClassVar[str] = "count"

    def latents(self, counter: Counter, requests: Sequence[Request], config: SampleConfig) -> Latents:
        wanted = jnp.asarray([wanted_count(request.prompt) for request in requests])
        generator = counter.generator
        inputs = generator.inputs(requests, config)
        sample = _compiled_critic(self, counter)
        latents: Latents = sample(config, generator.params, counter.params, generator.vae.params, wanted, *inputs)
        return latents

    def hook(self, log_counts: Any, wanted: Int[Array, "b"]) -> Hook:
        """The hook of one batch, `log_counts` a function of latents."""

        def loss(x_t: Latents, times: Float[Array, "b"], velocity: Velocity) -> Float[Array, ""]:
            log_p = log_counts(predict_x0(x_t, velocity(x_t, times), times))
            return -jnp.sum(jnp.take_along_axis(log_p, wanted[:, None], axis=1))

        def guide(x_t: Latents, t: jnp.ndarray, velocity: Velocity, aux: Any) -> Latents:
            times = jnp.full(x_t.shape[:1], t)
            moved = lambda x: x - self.strength * jnp.sqrt(t) * unit(jax.grad(loss)(x, times, velocity))
            acts = (self.low <= t) & (t <= self.high)
            guided_x: Latents = jax.lax.cond(acts, moved, lambda x: x, x_t) if self.strength else x_t
            return guided_x

        return guide

    def evaluations(self, config: SampleConfig) -> float:
        share = max(self.high - self.low, 0.0)
        return passes(config) * (1 + 3 * share)


@functools.cache
def _compiled_critic(guide: CriticGuide, counter: Counter) -> Any:
    network = counter.generator.denoiser.network

    def run(config: SampleConfig, params: Any, critic: Any, vae: Any, wanted: Any, *inputs: Any) -> Latents:
        hook = guide.hook(functools.partial(counter.log_counts, critic, vae), wanted)
        return functools.partial(sample_latents, hook=hook)(network, config, params, *inputs)

    return jax.jit(run, static_argnums=0)
