"""Guides to the right number of objects: gradients of a critic, of cross-attention, or the best of several clips.

A guided generator is a Generator whose sampling differs; a critic (configs/critic.py) counts for all of them.
"""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Clips, Latents
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.shape_world import NUMBERS
from mobile_video_jax.diffusion.guidance import Guidance, guided
from mobile_video_jax.diffusion.hook import Hook
from mobile_video_jax.diffusion.path import Velocity, predict_x0
from mobile_video_jax.diffusion.samplers import euler_step
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.nn.module import apply
from mobile_video_jax.rewards.count_loss import Edit, count_loss, edit_of, object_maps
from mobile_video_jax.rewards.questions import ANSWERS, COUNT, SHAPE, answer_index, attribute_questions, word_numbers
from mobile_video_jax.rewards.vqa import Vqa
from mobile_video_jax.vae.pixels import to_bytes

COUNTS = tuple(NUMBERS.values())
SEED_STEP = 1_000_003  # between the seeds of several clips for one request


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as the compiled programs need
class Counter:
    """The critic's count of the objects in latents, by the model's VAE."""

    generator: Generator
    vqa: Vqa
    params: Any

    def log_counts(self, critic: Any, vae: Any, latents: Latents) -> Float[Array, "b counts"]:
        """Log probabilities of the numbers of COUNTS."""
        video = jax.checkpoint(self.generator.vae.decode)(vae, latents)
        words = jnp.broadcast_to(jnp.asarray(word_numbers(COUNT)), (video.shape[0], 1, len(word_numbers(COUNT))))
        log_p = self.vqa.log_probabilities(critic, video, words)[:, 0]
        return jax.nn.log_softmax(log_p[:, jnp.asarray([ANSWERS.index(number) for number in COUNTS])])

    @functools.cached_property
    def compiled(self) -> Any:
        """log_counts of latents alone."""
        counts = jax.jit(self.log_counts)
        return lambda latents: counts(self.params, self.generator.vae.params, latents)

    def clips(self, latents: Latents) -> Clips:
        """The decoded clips."""
        return np.asarray(self._decode(self.generator.vae.params, latents))

    @functools.cached_property
    def _decode(self) -> Any:
        vae = self.generator.vae
        return jax.jit(lambda params, latents: to_bytes(vae.decode(params, latents)))


class CountGuide(abc.ABC):
    """A way to sample latents of requests with the right number of objects."""

    name: ClassVar[str]

    @abc.abstractmethod
    def latents(self, counter: Counter, requests: Sequence[Request], config: SampleConfig) -> Latents:
        """Normalised latents of one batch of requests."""

    @abc.abstractmethod
    def evaluations(self, config: SampleConfig) -> float:
        """Forward passes of the network a clip; a gradient counts as three."""

    def check(self, generator: Generator, requests: Sequence[Request], config: SampleConfig) -> None:
        """Raises UserError for a model, prompts or settings that the guide does not work with."""
        for request in requests:
            wanted_count(request.prompt)


def wanted_count(prompt: str) -> int:
    """The number of objects that a prompt names, from 0 for one. Raises UserError for a prompt that names none."""
    answers = [question.answer for question in attribute_questions(prompt) if question.text == COUNT]
    if not answers:
        raise UserError(f"the prompt '{prompt}' names no number of shapes: a guide reads 'three red squares'")
    return COUNTS.index(ANSWERS[answer_index(answers[0])])


def word_position(generator: Generator, prompt: str) -> int:
    """The place of the shape's word among a prompt's text tokens. Raises UserError for a prompt without one."""
    shapes = [question.answer for question in attribute_questions(prompt) if question.text == SHAPE]
    if not shapes:
        raise UserError(f"the prompt '{prompt}' names no shape: a guide reads 'three red squares'")
    start = prompt.lower().index(shapes[0])
    offsets = generator.text_encoder.tokenizer.encode(prompt).offsets
    return next(i for i, (first, last) in enumerate(offsets) if first <= start < last)


def _unit(gradient: Latents) -> Latents:
    """The gradient of each clip over its root mean square; where it is 0 it stays so."""
    rms = jnp.sqrt(jnp.mean(gradient**2, axis=(1, 2, 3, 4), keepdims=True))
    return gradient / jnp.maximum(rms, 1e-12)


def passes(config: SampleConfig) -> int:
    """Forward passes of a plain sampler a clip."""
    return config.steps * (2 if config.guidance != 1 else 1) * (2 if config.solver == "heun" else 1)


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
            moved = lambda x: x - self.strength * jnp.sqrt(t) * _unit(jax.grad(loss)(x, times, velocity))
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
        if generator.denoiser.family.cross_logits is None:
            raise UserError("this model has no cross-attention to guide by: use --guide=count or --guide=count_best")
        if config.solver != "euler" or config.reuse or any(request.image for request in requests):
            raise UserError(
                "count_attention takes plain Euler steps from text: leave out --solver, --reuse and --image"
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
            moved = lambda x: x - guide.strength * jnp.sqrt(t) * _unit(jax.grad(loss)(x, times))
            x = jax.lax.cond((guide.low <= t) & (t <= guide.high), moved, lambda x: x, x)
            return euler_step(velocity, jnp.where(inside, x, before), t, t_next), None

        return jax.lax.scan(body, noise, (grid[:-1], grid[1:], states))[0]

    return _Passes(first, second)
