"""Qwen2.5-VL as a critic: yes-or-no questions about a clip, and the log probability of the token "Yes"."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from tokenizers import Tokenizer

from mobile_video_jax.core.arrays import Rng, Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.module import apply
from mobile_video_jax.rewards.config import Aspect
from mobile_video_jax.rewards.critic import Arrays, Critic
from mobile_video_jax.rewards.questions import YES, questions_of
from mobile_video_jax.rewards.qwen.config import read_sizes
from mobile_video_jax.rewards.qwen.folder import read_params
from mobile_video_jax.rewards.qwen.model import Qwen, resized
from mobile_video_jax.rewards.qwen.shapes import init_qwen

QWEN = "qwen2_5_vl"  # a reward's run is qwen2_5_vl:FOLDER
PREFIX = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
SUFFIX = "<|vision_end|>{} Answer yes or no.<|im_end|>\n<|im_start|>assistant\n"
ANSWER = "Yes"
TOKENS = 96  # longest question, with its frame
LEAST_SIDE = 112  # pixels that the shorter side of a clip is enlarged to


class QwenCritic(Critic):
    """The Qwen2.5-VL in a folder, asked the yes-or-no questions of some aspects.

    Raises UserError for a folder of another model, without a tokenizer, and for an answer of several tokens.
    """

    def __init__(self, folder: Path, aspects: Sequence[Aspect], frame_rate: float, dtype: str = "bfloat16"):
        self.folder, self.aspects, self.frame_rate = folder, aspects, frame_rate
        self.sizes = read_sizes(folder, dtype)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{path} is missing: download the model's folder again")
        self.tokenizer = Tokenizer.from_file(str(path))
        self.prefix, answer = (self._ids(text) for text in (PREFIX, ANSWER))
        if len(answer) != 1:
            raise UserError(f"{path} makes {len(answer)} tokens of the answer '{ANSWER}': a critic needs a single one")
        self.answer = answer[0]

    def init(self, rng: Rng) -> Any:
        params = init_qwen(self.sizes, rng)
        return jax.tree.map(lambda x: x.astype(self.sizes.dtype) if x.ndim > 1 else x, params)

    def params(self, target: Any) -> Any:
        return read_params(self.folder, target)

    def questions(self, caption: str) -> Arrays:
        texts = [question.text for question in questions_of(caption, self.aspects) if question.answer == YES]
        rows = [self._ids(SUFFIX.format(f"{text[0].upper()}{text[1:]}")) for text in texts]
        if longest := [row for row in rows if len(row) > TOKENS]:
            raise UserError(f"a question of {len(longest[0])} tokens does not fit into {TOKENS}: shorten '{caption}'")
        padded = np.stack([np.pad(row, (0, TOKENS - len(row))) for row in rows])
        return {"question_ids": padded, "question_last": np.array([len(row) - 1 for row in rows], np.int32)}

    def question_shapes(self, clips: int) -> Arrays:
        return {
            "question_ids": jax.ShapeDtypeStruct((clips, len(self.aspects), TOKENS), jnp.int32),
            "question_last": jax.ShapeDtypeStruct((clips, len(self.aspects)), jnp.int32),
        }

    def log_probability(self, params: Any, video: Video, questions: Arrays) -> Float[Array, "b"]:
        prefix, clips = jnp.asarray(self.prefix), resized(video, self.sizes, LEAST_SIDE)
        ids, last = questions["question_ids"], questions["question_last"]
        logits = apply(Qwen(self.sizes), params, clips, prefix, ids, last, self.frame_rate)
        mean: jax.Array = jnp.mean(jax.nn.log_softmax(logits)[..., self.answer], axis=1)
        return mean

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
