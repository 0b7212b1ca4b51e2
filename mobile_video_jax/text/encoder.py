"""Captions to text states: the one interface behind which every text encoder stands."""

import collections
import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float32
from tokenizers import Encoding, Tokenizer

from mobile_video_jax.core.arrays import TextMask, TextStates, TokenIds
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import clip, minilm, t5
from mobile_video_jax.text.encoder_name import MINILM, EncoderName
from mobile_video_jax.text.sentencepiece import read_spiece
from mobile_video_jax.weights import huggingface as weights

CaptionStates = Float32[np.ndarray, "_ e"]  # one caption, not padded: its length is its own

BATCH = 16
SHORTEST = 16
LTX_PREFIX = "ltx-"  # how the names of LTX-Video's encoders begin
LTX_TOKENS = 128  # max_sequence_length of diffusers' LTXPipeline


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen text encoder: `width` numbers for each token, at most `max_tokens` tokens, special ones included.

    `tokenizer` cuts at `max_tokens` and does not pad; `states` is the compiled forward pass. With
    `padded_to` a caption is padded to so many tokens and attends to the padding: so LTX-Video's pipeline calls its T5.
    """

    name: str
    width: int
    max_tokens: int
    tokenizer: Tokenizer
    states: Callable[[TokenIds, TextMask], TextStates]
    padded_to: int = 0

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

    def empty(self) -> CaptionStates:
        """States of a text without words: those of its special tokens."""
        ids = self.tokenizer.encode("").ids
        return self._forward([ids], self._padded_length(len(ids)))[0]

    def limited_to(self, tokens: int) -> "TextEncoder":
        """The same encoder, which cuts captions at fewer tokens. Raises UserError where it cannot take so many."""
        if not 2 < tokens <= self.max_tokens:
            raise UserError(f"{self.name} takes 3 to {self.max_tokens} tokens of a caption, not {tokens}")
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.enable_truncation(tokens)
        return dataclasses.replace(self, max_tokens=tokens, tokenizer=tokenizer)

    def _tokenize(self, captions: Sequence[str]) -> list[list[int]]:
        encodings = self.tokenizer.encode_batch(list(captions))
        for caption, encoding in zip(captions, encodings, strict=True):
            if not caption.strip() or all(encoding.special_tokens_mask):
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
        if self.padded_to:
            return self.padded_to
        return min(self.max_tokens, max(SHORTEST, 1 << (tokens - 1).bit_length()))

    def _forward(self, rows: list[list[int]], length: int) -> list[CaptionStates]:
        ids = np.zeros((BATCH, length), np.int32)
        mask = np.full((BATCH, length), bool(self.padded_to))
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        # Cached states should be the same whichever accelerator made them: no TF32, no bfloat16 passes.
        with jax.default_matmul_precision("highest"):
            states = np.asarray(self.states(jnp.asarray(ids), jnp.asarray(mask)))
        return [states[row, : len(tokens)].copy() for row, tokens in enumerate(rows)]


def load_text_encoder(name: str) -> TextEncoder:
    """The text encoder "minilm", "clip:FOLDER" or "t5:FOLDER" (T5 v1.1 or UMT5), of a folder in Hugging Face's layout.

    The folder holds config.json, tokenizer.json or spiece.model, and model.safetensors or its shards with their index;
    it may be moved, because the encoder's own name (clip-0a1b2c3d, say) is made of what the files hold. "ltx:FOLDER" is
    the T5 of a diffusers pipeline, in its folders text_encoder and tokenizer, called as LTX-Video does. Raises
    UserError for an unknown name, and for files that are missing or do not fit together.
    """
    encoder = EncoderName.parse(name)
    return load_minilm() if encoder.kind == MINILM else LOADERS[encoder.kind](encoder.folder)


def load_minilm() -> TextEncoder:
    """all-MiniLM-L6-v2 (22.6 M parameters), which was trained on texts of up to 256 tokens."""
    files, config, max_tokens = minilm.find_files(), minilm.BertConfig(), 256
    tokenizer = _read_tokenizer(_tokenizer_file(files), max_tokens, config.vocabulary)
    params = minilm.read_params(files / weights.WEIGHTS, config)
    return TextEncoder("minilm", config.width, max_tokens, tokenizer, _compiled(minilm.Bert(config), params))


def load_clip(folder: Path) -> TextEncoder:
    """The text transformer of the CLIP in a folder; it takes as many tokens as it has positions."""
    config, path = clip.read_config(folder), _tokenizer_file(folder)
    tokenizer = _read_tokenizer(path, config.positions, config.vocabulary)
    states = _compiled(clip.ClipText(config), clip.read_params(folder, config))
    name = f"clip-{weights.fingerprint(folder, path)}"
    return TextEncoder(name, config.width, config.positions, tokenizer, states)


def load_t5(folder: Path, max_tokens: int = 256) -> TextEncoder:
    """The encoder of the T5 v1.1 or UMT5 in a folder; position biases set no limit of their own to `max_tokens`."""
    return _t5(folder, folder, max_tokens)


def load_ltx_text(pipeline: Path) -> TextEncoder:
    """The T5 of a diffusers pipeline as LTX-Video calls it: padded to 128 tokens, none of them masked."""
    encoder = _t5(pipeline / "text_encoder", pipeline / "tokenizer", LTX_TOKENS)
    return dataclasses.replace(encoder, name=f"{LTX_PREFIX}{encoder.name}", padded_to=LTX_TOKENS)


def name_ltx_text(pipeline: Path) -> tuple[str, int]:
    """The name and width of load_ltx_text's encoder, without reading it into memory."""
    folder = pipeline / "text_encoder"
    model_type, config = t5.read_config(folder)
    return (
        f"{LTX_PREFIX}{model_type}-{weights.fingerprint(folder, _tokenizer_file(pipeline / 'tokenizer'))}",
        config.width,
    )


def _t5(folder: Path, tokenizer_folder: Path, max_tokens: int) -> TextEncoder:
    (model_type, config), path = t5.read_config(folder), _tokenizer_file(tokenizer_folder)
    tokenizer = _read_tokenizer(path, max_tokens, config.vocabulary)
    states = _compiled(t5.T5Encoder(config), t5.read_params(folder, config))
    name = f"{model_type}-{weights.fingerprint(folder, path)}"
    return TextEncoder(name, config.width, max_tokens, tokenizer, states)


LOADERS: dict[str, Callable[[Path], TextEncoder]] = {"clip": load_clip, "t5": load_t5, "ltx": load_ltx_text}


def _tokenizer_file(folder: Path) -> Path:
    for name in weights.TOKENIZERS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder / weights.TOKENIZERS[0]} is missing: save the model's tokenizer there")


def _read_tokenizer(path: Path, max_tokens: int, vocabulary: int) -> Tokenizer:
    tokenizer = read_spiece(path) if path.suffix == ".model" else Tokenizer.from_file(str(path))
    # An id beyond the table of words would be looked up as NaN.
    if tokenizer.get_vocab_size() > vocabulary:
        raise UserError(
            f"{path} has {tokenizer.get_vocab_size()} tokens, the model knows {vocabulary}: take both from one model"
        )
    # The file's own settings may pad, and cut every text at another length.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _compiled(module: nn.Module, params: dict[str, Any]) -> Callable[[TokenIds, TextMask], TextStates]:
    return functools.partial(jax.jit(module.apply), {"params": params})


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
