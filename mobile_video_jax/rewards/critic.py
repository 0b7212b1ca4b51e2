"""Critics: frames and questions in, log probabilities of the promised answers out (Diffusion-DRF, arXiv 2601.04153).

A critic is frozen, and differentiable in the pixels. Its questions travel with the batch as arrays that it makes of
each caption.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng, Video
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.mesh import replicated
from mobile_video_jax.rewards.config import Aspect, CriticConfig
from mobile_video_jax.rewards.questions import WORDS, most_questions, question_arrays, questions_of
from mobile_video_jax.rewards.vqa import Vqa

Arrays = Mapping[str, Any]


class Critic(abc.ABC):
    """A network that answers questions about clips."""

    @abc.abstractmethod
    def init(self, rng: Rng) -> Any:
        """Random parameters, each with its logical axis names."""

    @abc.abstractmethod
    def params(self, target: Any) -> Any:
        """The trained parameters, sharded like `target`."""

    @abc.abstractmethod
    def questions(self, caption: str) -> Arrays:
        """The questions of a caption as arrays of one shape, whose names begin with "question"."""

    @abc.abstractmethod
    def question_shapes(self, clips: int) -> Arrays:
        """The shapes of the questions of a batch."""

    @abc.abstractmethod
    def log_probability(self, params: Any, video: Video, questions: Arrays) -> Float[Array, "b"]:
        """Log probability of the promised answers, a mean over each clip's questions; clips are in [-1, 1]."""


class SmallCritic(Critic):
    """The small network of a run of configs/critic.py, asked about some aspects."""

    def __init__(self, run: Run, aspects: Sequence[Aspect] = get_args(Aspect)):
        if run.stage != "critic":
            raise UserError(f"{run} is of stage '{run.stage}': name a run of configs/critic.py")
        self.run, self.aspects, self.count = run, aspects, most_questions(aspects)
        self.vqa, self.clip = Vqa(from_mapping(CriticConfig, run.config["critic"])), ClipShape.parse(run.config["clip"])

    def init(self, rng: Rng) -> Any:
        video = jnp.zeros((1, self.clip.frames, self.clip.height, self.clip.width, 3))
        return self.vqa.init(rng, video, jnp.zeros((1, 1, WORDS), jnp.int32))

    def params(self, target: Any) -> Any:
        return self.run.params(target)

    def params_over(self, mesh: Mesh) -> Any:
        """The trained parameters on every device of a mesh."""
        shapes = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))
        return self.params(jax.tree.map(lambda x: abstract(x, replicated(mesh)), shapes))

    def questions(self, caption: str) -> Arrays:
        words, answers, asked = question_arrays(questions_of(caption, self.aspects), self.count)
        return {"question_words": words, "question_answers": answers, "question_asked": asked}

    def question_shapes(self, clips: int) -> Arrays:
        return {
            "question_words": jax.ShapeDtypeStruct((clips, self.count, WORDS), jnp.int32),
            "question_answers": jax.ShapeDtypeStruct((clips, self.count), jnp.int32),
            "question_asked": jax.ShapeDtypeStruct((clips, self.count), jnp.bool_),
        }

    def log_probability(self, params: Any, video: Video, questions: Arrays) -> Float[Array, "b"]:
        log_p = self.vqa.log_probabilities(params, video, questions["question_words"])
        promised = jnp.take_along_axis(log_p, questions["question_answers"][..., None], axis=-1)[..., 0]
        mean: jax.Array = jnp.mean(promised, axis=1, where=questions["question_asked"])
        return mean
