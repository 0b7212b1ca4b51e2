"""Questions about a clip, made from its caption by a template for each aspect, with the answers that it should get."""

import dataclasses
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.shape_world import COLOURS, NUMBERS, SHAPES, VERBS
from mobile_video_jax.rewards.config import Aspect

YES, NO = "yes", "no"
# What the small critic can answer: the shape world's values, and those of easy-vqa's images.
ANSWERS = (
    YES,
    NO,
    *NUMBERS.values(),
    *COLOURS,
    *SHAPES,
    *VERBS,
    *("black", "brown", "gray", "teal", "rectangle"),
)
# Questions of fixed words; those of a caption in other words are asked about it as a whole alone.
COUNT, COLOUR, SHAPE = "how many objects are there?", "what colour are the objects?", "what shape are the objects?"
MOTION = "how do the objects move?"
SHOWS = "does the video show {}?"
KEEPS, SHARP = "do the objects keep their shape and colour?", "is the picture sharp?"
WORDS = 20  # longest question in words; the rest is not read
BUCKETS = 1021  # numbers that words are hashed to; 0 is padding


@dataclasses.dataclass(frozen=True)
class Question:
    """A question, the answer that the caption promises, and the aspect of the clip that it asks about."""

    aspect: Aspect
    text: str
    answer: str


class QuestionArrays(NamedTuple):
    """Questions as the small critic reads them: words by number (0: padding), answers by number in ANSWERS."""

    words: Int32[np.ndarray, "q s"]
    answers: Int32[np.ndarray, "q"]
    asked: Bool[np.ndarray, "q"]  # False where a clip has fewer questions than others


def attribute_questions(caption: str) -> list[Question]:
    """Count, colour, shape and motion, as far as a caption of the shape world names them."""
    words = re.findall("[a-z]+", caption.lower())
    singular = {word: shape for shape in SHAPES for word in (shape, f"{shape}s", f"{shape}es")}
    numbers = {**{word: word for word in NUMBERS.values()}, "a": NUMBERS[1]}
    shape = next((singular[word] for word in words if word in singular), None)
    if shape is None:
        return []
    values = {
        COUNT: next((numbers[word] for word in words if word in numbers), None),
        COLOUR: next((word for word in words if word in COLOURS), None),
        SHAPE: shape,
        MOTION: next((motion for motion, forms in VERBS.items() if any(form in caption for form in forms)), None),
    }
    return [Question("alignment", text, answer) for text, answer in values.items() if answer]


def questions_of(caption: str, aspects: Sequence[Aspect]) -> list[Question]:
    """The questions of these aspects: alignment with the caption, physics and quality."""
    whole = Question("alignment", SHOWS.format(caption.rstrip(".").lower()), YES)
    every = [*attribute_questions(caption), whole, Question("physics", KEEPS, YES), Question("quality", SHARP, YES)]
    return [question for question in every if question.aspect in aspects]


def answer_index(answer: str) -> int:
    """An answer's number. Raises UserError for one that the critic has no token for."""
    if answer not in ANSWERS:
        raise UserError(f"'{answer}' is no answer of the critic: it has {', '.join(ANSWERS)}")
    return ANSWERS.index(answer)


def word_numbers(text: str) -> Int32[np.ndarray, "s"]:
    """The words of a question by number, padded with zeros to WORDS."""
    words = re.findall("[a-z0-9]+", text.lower())[:WORDS]
    numbers = [1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in words]
    return np.array(numbers + [0] * (WORDS - len(numbers)), np.int32)


def question_arrays(questions: Sequence[Question], count: int) -> QuestionArrays:
    """`count` questions of one clip as arrays, those that are missing not asked. Raises UserError for more."""
    if len(questions) > count:
        raise UserError(f"a clip has {len(questions)} questions, the batch room for {count}")
    missing = count - len(questions)
    words = [word_numbers(question.text) for question in questions]
    empty = [np.zeros(WORDS, np.int32)] * missing
    answers = [answer_index(question.answer) for question in questions] + [0] * missing
    return QuestionArrays(np.stack([*words, *empty]), np.array(answers, np.int32), np.arange(count) < len(questions))


def most_questions(aspects: Iterable[Aspect]) -> int:
    """The most questions that a caption has in these aspects."""
    return sum({"alignment": 5, "physics": 1, "quality": 1}[aspect] for aspect in aspects)
