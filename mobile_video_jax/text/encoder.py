"""Captions to text states: the one interface behind which every text encoder stands."""

import collections
import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32
from tokenizers import Encoding, Tokenizer

from mobile_video_jax.core.arrays import TextMask, TextStates, TokenIds
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import minilm

CaptionStates = Float32[np.ndarray, "_ e"]  # one caption, not padded: its length is its own

BATCH = 16
SHORTEST = 16


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen text encoder: `width` numbers for each token, at most `max_tokens` tokens, special ones included.

    `tokenizer` cuts at `max_tokens` and does not pad; `states` is the compiled forward pass.
    """

    name: str
    width: int
    max_tokens: int
    tokenizer: Tokenizer
    states: Callable[[TokenIds, TextMask], TextStates]

    def encode(self, captions: Sequence[str]) -> list[CaptionStates]:
        """States [s_i, width] of each caption, s_i its own token count; a longer caption is cut with a warning.

        The states of a caption do not depend on its neighbours. Raises UserError for a caption without words.
        """
        tokens = self._tokenize(captions)
        groups = collections.defaultdict(list)
        for index, ids in enumerate(tokens):
            groups[self._padded_length(len(ids))].append(index)
        states: dict[int, CaptionStates] = {}
        for length, indices in groups.items():
            for start in range(0, len(indices), BATCH):
                batch = indices[start : start + BATCH]
                states.update(zip(batch, self._forward([tokens[i] for i in batch], length), strict=True))
        return [states[i] for i in range(len(tokens))]

    def _tokenize(self, captions: Sequence[str]) -> list[list[int]]:
        encodings = self.tokenizer.encode_batch(list(captions))
        for caption, encoding in zip(captions, encodings, strict=True):
            if all(encoding.special_tokens_mask):
                raise UserError(f"the caption {caption!r} has no words: describe the video in some")
        self._warn_of_cuts(captions, encodings)
        return [encoding.ids for encoding in encodings]

    def _warn_of_cuts(self, captions: Sequence[str], encodings: list[Encoding]) -> None:
        cut = [i for i, encoding in enumerate(encodings) if encoding.overflowing]
        if cut:
            words = encodings[cut[0]].offsets[-2][1]  # where the last token before the closing one ends
            warnings.warn(
                f"{len(cut)} of {len(captions)} captions are longer than the {self.max_tokens} tokens of {self.name} "
                f"and were cut; the first now ends at '…{captions[cut[0]][:words][-40:]}'",
                stacklevel=4,
            )

    def _padded_length(self, tokens: int) -> int:
        """The next power of two, so that few shapes are compiled."""
        return min(self.max_tokens, max(SHORTEST, 1 << (tokens - 1).bit_length()))

    def _forward(self, rows: list[list[int]], length: int) -> list[CaptionStates]:
        ids = np.zeros((BATCH, length), np.int32)
        mask = np.zeros((BATCH, length), bool)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        # Cached states should be the same whichever accelerator made them: no TF32, no bfloat16 passes.
        with jax.default_matmul_precision("highest"):
            states = np.asarray(self.states(jnp.asarray(ids), jnp.asarray(mask)))
        return [states[row, : len(tokens)].copy() for row, tokens in enumerate(rows)]


def load_text_encoder(name: str) -> TextEncoder:
    """The text encoder of that name. Raises UserError for an unknown name and for weights that are not installed."""
    if name not in LOADERS:
        raise UserError(f"there is no text encoder '{name}': known are {', '.join(sorted(LOADERS))}")
    return LOADERS[name]()


def load_minilm() -> TextEncoder:
    """all-MiniLM-L6-v2 (22.6 M parameters), which was trained on texts of up to 256 tokens."""
    files, config, max_tokens = minilm.find_files(), minilm.BertConfig(), 256
    params = minilm.read_params(files / "model.safetensors", config)
    tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
    # The file's own settings pad and cut every text to 128 tokens.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    forward = functools.partial(jax.jit(minilm.Bert(config).apply), {"params": params})
    return TextEncoder("minilm", config.width, max_tokens, tokenizer, forward)


LOADERS: dict[str, Callable[[], TextEncoder]] = {"minilm": load_minilm}


def pad(
    states: list[CaptionStates], length: int
) -> tuple[Float32[np.ndarray, "b {length} e"], Bool[np.ndarray, "b {length}"]]:
    """Batches captions' states as (states [b length e], zero where there is no token; mask [b length], True = token).

    Raises UserError when a caption has more than `length` tokens.
    """
    longest = max(map(len, states))
    if longest > length:
        raise UserError(
            f"a caption of {longest} tokens does not fit into {length}: shorten it, or train with text_tokens={longest}"
        )
    mask = np.arange(length) < np.array([len(rows) for rows in states])[:, None]
    padded = np.zeros((*mask.shape, states[0].shape[-1]), np.float32)
    padded[mask] = np.concatenate(states)
    return padded, mask
