"""The images and questions of the package easy-vqa (MIT): one coloured shape on white, 13 answers.

The package is optional: pip install -e '.[critic]'.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.rewards.questions import answer_index, word_numbers


@dataclasses.dataclass(frozen=True)
class ImageQuestions:
    """Images, and questions about them: each one's words, the number of its image, and that of its answer."""

    images: UInt8[np.ndarray, "i h w 3"]
    words: Int32[np.ndarray, "n s"]
    image: Int32[np.ndarray, "n"]
    answers: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.words)

    def record(self, number: int) -> dict[str, Any]:
        """The arrays of one question, as a clip of one frame."""
        return {
            "image": self.images[self.image[number]][None],
            "image_words": self.words[number][None],
            "image_answers": self.answers[number][None],
        }


@functools.cache
def read_easy_vqa(split: str, height: int, width: int) -> ImageQuestions:
    """The package's "train" or "test" split, its images resized. Raises UserError where it is not installed."""
    try:
        import easy_vqa
    except ImportError:
        raise UserError("easy-vqa is not installed: pip install -e '.[critic]', or set --config.images=0") from None
    texts, answers, ids = getattr(easy_vqa, f"get_{split}_questions")()
    paths = getattr(easy_vqa, f"get_{split}_image_paths")()
    numbers = {name: number for number, name in enumerate(sorted(paths))}
    size = (width, height)
    images = [np.asarray(Image.open(paths[name]).convert("RGB").resize(size, Image.Resampling.BOX)) for name in numbers]
    words = {text: word_numbers(text) for text in set(texts)}
    return ImageQuestions(
        np.stack(images),
        np.stack([words[text] for text in texts]),
        np.array([numbers[name] for name in ids], np.int32),
        np.array([answer_index(answer) for answer in answers], np.int32),
    )
