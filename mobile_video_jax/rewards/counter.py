"""What guides to the right number of objects share: the critic's count of latents, and what a prompt asks for.

A guided generator is a Generator whose sampling differs; a critic (configs/critic.py) counts for all guides.
"""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Clips, Latents
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.shape_world import NUMBERS
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.rewards.questions import ANSWERS, COUNT, SHAPE, answer_index, attribute_questions, word_numbers
from mobile_video_jax.rewards.vqa import Vqa
from mobile_video_jax.vae.pixels import to_bytes

COUNTS = tuple(NUMBERS.values())


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


def unit(gradient: Latents) -> Latents:
    """The gradient of each clip over its root mean square; where it is 0 it stays so."""
    rms = jnp.sqrt(jnp.mean(gradient**2, axis=(1, 2, 3, 4), keepdims=True))
    return gradient / jnp.maximum(rms, 1e-12)


def passes(config: SampleConfig) -> int:
    """Forward passes of a plain sampler a clip."""
    return config.steps * (2 if config.guidance != 1 else 1) * (2 if config.solver == "heun" else 1)
