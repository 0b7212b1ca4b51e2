"""Training of the small critic: questions about rendered clips, some of them damaged so that the answer is no."""

import itertools
from collections.abc import Iterable
from typing import Any, get_args

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mobile_video_jax.core.arrays import Rng, Scalar, Video
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.data.clip_loader import Record
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.location import data_folder
from mobile_video_jax.data.pipeline import clip_batches
from mobile_video_jax.parallel.mesh import batch_shard
from mobile_video_jax.rewards.config import Aspect
from mobile_video_jax.rewards.easy_vqa_images import ImageQuestions, read_easy_vqa
from mobile_video_jax.rewards.questions import (
    ANSWERS,
    NO,
    WORDS,
    YES,
    attribute_questions,
    most_questions,
    question_arrays,
    questions_of,
)
from mobile_video_jax.rewards.vqa import LogProbabilities, Vqa
from mobile_video_jax.stages.config import CriticTraining
from mobile_video_jax.train.held_out import mean_over_clips
from mobile_video_jax.train.stage import Batch, Metrics, Params, Stage
from mobile_video_jax.vae.pixels import to_signed

QUESTIONS = ("count", "colour", "shape", "motion", "shows", "keeps", "sharp")  # of every caption, in their order
ATTRIBUTES, SHOWS, KEEPS, SHARP = 4, 4, 5, 6  # the first of them, and the places of the others
NOISE = 0.1  # largest standard deviation of the noise that clips are shown with, in [-1, 1]
BLUR = 4  # pixels that a blurred clip's squares are wide


class CriticStage(Stage):
    """Cross-entropy of the answers. Half of the clips are damaged in each of three ways, independently.

    Another clip's second half (do objects keep their shape?), squares of one colour (is it sharp?), and another clip's
    caption (does it show this?).
    """

    config: CriticTraining

    def __init__(self, config: CriticTraining):
        super().__init__(config)
        self.clip = ClipShape.parse(config.clip)
        if self.clip.height % 8 or self.clip.width % 8:
            raise UserError(f"the critic reads squares of 8 x 8 pixels, which {self.clip} has no whole number of")
        self.vqa = Vqa(config.critic)

    def init(self, rng: Rng) -> Params:
        video = jnp.zeros((1, self.clip.frames, self.clip.height, self.clip.width, 3))
        params: Params = self.vqa.init(rng, video, jnp.zeros((1, 1, WORDS), jnp.int32))
        return params

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        log_p, answers, asked = self._answered(params, batch, rng)
        right = jnp.argmax(log_p, axis=-1) == answers
        loss = -jnp.mean(_of(log_p, answers), where=asked)
        if "image" in batch:
            images = self.vqa.log_probabilities(params, to_signed(batch["image"]), batch["image_words"])
            loss = loss - jnp.mean(_of(images, batch["image_answers"]))
        return loss, {"accuracy": jnp.mean(right, where=asked)}

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out cross-entropy, and the accuracy of each question, about half of the clips being damaged."""
        log_p, answers, asked = self._answered(params, batch, rng)
        per_clip = -jnp.mean(_of(log_p, answers), axis=1, where=asked)
        right = (jnp.argmax(log_p, axis=-1) == answers).astype(jnp.float32)
        weights = asked * batch["weight"][:, None]
        accuracy = jnp.sum(right * weights, axis=0) / jnp.maximum(jnp.sum(weights, axis=0), 1)
        metrics = {f"accuracy_{name}": accuracy[i] for i, name in enumerate(QUESTIONS)}
        return {"loss": mean_over_clips(per_clip, batch), **metrics}

    def _answered(
        self, params: Params, batch: Batch, rng: Rng
    ) -> tuple[LogProbabilities, Int[Array, "b q"], Bool[Array, "b q"]]:
        """The critic's answers about damaged clips, the right ones, and which questions have one."""
        video, words, answers = to_signed(batch["video"]), batch["words"], batch["answers"]
        swap, blur, mismatch = (
            jax.random.bernoulli(named_key(rng, name), 0.5, video.shape[:1]) for name in ("swap", "blur", "caption")
        )
        others = jnp.roll(answers[:, :ATTRIBUTES], 1, axis=0)
        differs = answers[:, :ATTRIBUTES] != others
        yes, no = ANSWERS.index(YES), ANSWERS.index(NO)
        words = words.at[:, SHOWS].set(
            jnp.where(mismatch[:, None], jnp.roll(words[:, SHOWS], 1, axis=0), words[:, SHOWS])
        )
        answers = answers.at[:, SHOWS].set(jnp.where(mismatch & jnp.any(differs, axis=1), no, yes))
        answers = answers.at[:, KEEPS].set(jnp.where(swap & jnp.any(differs[:, :-1], axis=1), no, yes))
        answers = answers.at[:, SHARP].set(jnp.where(blur, no, yes))
        # Of two clips in one no attribute is right.
        asked = jnp.ones(answers.shape, bool).at[:, : SHOWS + 1].set(~swap[:, None])
        video = _noisy(_damaged(video, swap, blur), rng)
        return self.vqa.log_probabilities(params, video, words), answers, asked

    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        clips = self._batches("train", mesh, train=True)
        if not self.config.images:
            return clips
        index, count = batch_shard(mesh)
        questions = read_easy_vqa("train", self.clip.height, self.clip.width)
        images = _image_batches(questions, self.config.images // count, self.config.seed + index)
        return grain.experimental.ZipIterDataset([clips, images]).map(lambda parts: {**parts[0], **parts[1]})

    def eval_batches(self, mesh: Mesh) -> Iterable[dict[str, np.ndarray]]:
        """Held-out clips; none where the data have no validation split."""
        if not ClipSource.open(data_folder(self.config.data)).sizes.get("validation"):
            return ()
        return itertools.islice(self._batches("validation", mesh, train=False), self.config.eval_batches)

    def _batches(self, split: str, mesh: Mesh, *, train: bool) -> grain.IterDataset:
        config, (index, count) = self.config, batch_shard(mesh)
        return clip_batches(
            ClipSource.open(data_folder(config.data)),
            split,
            self.clip,
            config.batch_size,
            config.seed,
            train=train,
            threads=config.loader_threads,
            process_index=index,
            process_count=count,
            also=caption_questions,
        )

    def abstract_batch(self, devices: int | None = None) -> Batch:
        count, clip = self.config.batch_size, self.clip
        return {
            "video": jax.ShapeDtypeStruct((count, clip.frames, clip.height, clip.width, 3), jnp.uint8),
            "words": jax.ShapeDtypeStruct((count, len(QUESTIONS), WORDS), jnp.int32),
            "answers": jax.ShapeDtypeStruct((count, len(QUESTIONS)), jnp.int32),
        }

    def batch_tokens(self, devices: int | None = None) -> int:
        return self.config.batch_size * self.clip.frames * (self.clip.height // 8) * (self.clip.width // 8)

    def description(self) -> dict[str, Any]:
        return {"clip": str(self.clip), "parameters": count_parameters(self.shapes)}


def caption_questions(record: Record) -> Record:
    """The arrays `words` and `answers` of a prepared clip. Raises UserError for a caption of another world."""
    caption = record["caption"].decode()
    if len(attribute_questions(caption)) < ATTRIBUTES:
        raise UserError(f"the small critic knows moving shapes alone, and a caption is '{caption}': use moving_shapes")
    aspects = get_args(Aspect)
    arrays = question_arrays(questions_of(caption, aspects), most_questions(aspects))
    return {"words": arrays.words, "answers": arrays.answers}


def _of(log_p: LogProbabilities, answers: Array) -> Float[Array, "b q"]:
    return jnp.take_along_axis(log_p, answers[..., None], axis=-1)[..., 0]


def _damaged(video: Video, swap: Bool[Array, "b"], blur: Bool[Array, "b"]) -> Video:
    """Clips with the second half of the clip before them, and clips of squares."""
    b, t, h, w, c = video.shape
    second_half = jnp.arange(t)[:, None, None, None] >= t // 2
    video = jnp.where(swap[:, None, None, None, None] & second_half, jnp.roll(video, 1, axis=0), video)
    squares = video.reshape(b, t, h // BLUR, BLUR, w // BLUR, BLUR, c).mean((3, 5), keepdims=True)
    blurred = jnp.broadcast_to(squares, (b, t, h // BLUR, BLUR, w // BLUR, BLUR, c)).reshape(video.shape)
    return jnp.where(blur[:, None, None, None, None], blurred, video)


def _noisy(video: Video, rng: Rng) -> Video:
    deviation = NOISE * jax.random.uniform(named_key(rng, "deviation"), (video.shape[0], 1, 1, 1, 1))
    return video + deviation * jax.random.normal(named_key(rng, "noise"), video.shape)


def _image_batches(questions: ImageQuestions, size: int, seed: int) -> grain.IterDataset:
    order = grain.MapDataset.range(len(questions)).seed(seed).shuffle().repeat()
    return order.map(questions.record).batch(size, drop_remainder=True).to_iter_dataset()
