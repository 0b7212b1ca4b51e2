"""Captions to text states: the interface and the loaders of all text encoders."""

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
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float32
from tokenizers import Encoding, Tokenizer

from mobile_video_jax.core.arrays import TextMask, TextStates, TokenIds
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import clip, minilm, t5
from mobile_video_jax.text.encoder_name import MINILM, PIPELINE_TEXTS, EncoderName
from mobile_video_jax.text.sentencepiece import read_spiece
from mobile_video_jax.weights import huggingface

CaptionStates = Float32[np.ndarray, "_ e"]  # tokens of one caption, without padding

BATCH = 16  # captions per forward pass
MIN_LENGTH = 16  # tokens that shorter captions are padded to
LEAST_KNOWN = 0.75  # share of a model's embedding table that its own tokenizer uses at least
SHARDED_BYTES = 1 << 31  # from this size on an encoder's parameters are shared by the devices of a host
CONDITION_PIPELINE = "LTXConditionPipeline"  # diffusers' class of the releases that mask padding


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen text encoder with its tokenizer."""

    name: str  # stored in runs and data sets, such as clip-0a1b2c3d
    width: int  # channels of a token's state
    max_tokens: int  # tokens of a caption, special ones included
    tokenizer: Tokenizer  # truncates to max_tokens and does not pad
    states: Callable[[TokenIds, TextMask], TextStates]  # the compiled forward pass
    padded_to: int = 0  # tokens that captions are padded to, and attend to, as in LTXPipeline; 0: no padding
    keeps_empty: bool = False  # "no caption" is the state of the empty text, as in pipelines of diffusers, not zero

    def encode(self, captions: Sequence[str]) -> list[CaptionStates]:
        """States [s_i, width] of each caption, s_i its token count; too long captions are truncated with a warning.

        The states of a caption do not depend on the others. Raises UserError for a caption without words.
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

    def without_tokens(self, captions: Sequence[str]) -> list[int]:
        """The numbers of the captions that have no tokens but special ones."""
        encodings = self.tokenizer.encode_batch(list(captions))
        return [i for i, encoding in enumerate(encodings) if all(encoding.special_tokens_mask)]

    def empty(self) -> CaptionStates:
        """States [s, width] of the empty text: of its special tokens."""
        ids = self.tokenizer.encode("").ids
        return self._forward([ids], self._padded_length(len(ids)))[0]

    def limited_to(self, tokens: int) -> "TextEncoder":
        """The same encoder with a lower max_tokens. Raises UserError where `tokens` is below 3 or above max_tokens."""
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
        self._warn_of_truncation(captions, encodings)
        return [encoding.ids for encoding in encodings]

    def _warn_of_truncation(self, captions: Sequence[str], encodings: list[Encoding]) -> None:
        truncated = [i for i, encoding in enumerate(encodings) if encoding.overflowing]
        if truncated:
            first = truncated[0]
            end = encodings[first].offsets[-2][1]  # of the last token before the closing one
            warnings.warn(
                f"{len(truncated)} of {len(captions)} captions are longer than the {self.max_tokens} tokens of "
                f"{self.name} and were cut; the first now ends at '…{captions[first][:end][-40:]}'",
                stacklevel=4,
            )

    def _padded_length(self, tokens: int) -> int:
        """The next power of two, so that few shapes are compiled, or `padded_to`."""
        if self.padded_to:
            return self.padded_to
        return min(self.max_tokens, max(MIN_LENGTH, 1 << (tokens - 1).bit_length()))

    def _forward(self, rows: list[list[int]], length: int) -> list[CaptionStates]:
        ids = np.zeros((BATCH, length), np.int32)
        mask = np.full((BATCH, length), bool(self.padded_to))
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        # Cached states must not depend on the accelerator: no TF32, no bfloat16 passes.
        with jax.default_matmul_precision("highest"):
            states = np.asarray(self.states(jnp.asarray(ids), jnp.asarray(mask)))
        return [states[row, : len(tokens)].copy() for row, tokens in enumerate(rows)]


def load_text_encoder(name: str) -> TextEncoder:
    """Loads "minilm", or "clip:FOLDER" or "t5:FOLDER" (T5 v1.1 or UMT5) from a folder in Hugging Face's layout.

    The folder holds config.json, tokenizer.json or spiece.model, and model.safetensors or its shards with their index.
    It may be moved: the encoder's name (such as clip-0a1b2c3d) depends on the files' contents alone. "ltx:FOLDER" is
    the T5 of a diffusers pipeline, in its folders text_encoder and tokenizer, used as the class in its model_index.json
    does; "ltx_masked:FOLDER" uses it as LTXConditionPipeline whatever the class. Raises UserError for an unknown name,
    and for files that are missing or do not fit together.
    """
    encoder = EncoderName.parse(name)
    if encoder.kind == MINILM:
        return load_minilm()
    if encoder.kind in PIPELINE_TEXTS:
        return load_pipeline_text(encoder.folder, pipeline_kind(encoder))
    return LOADERS[encoder.kind](encoder.folder)


def load_minilm() -> TextEncoder:
    """Loads all-MiniLM-L6-v2 (22.6 M parameters), which was trained on texts of up to 256 tokens."""
    files, config, max_tokens = minilm.find_files(), minilm.BertConfig(), 256
    tokenizer = _read_tokenizer(_tokenizer_file(files), max_tokens, config.vocabulary)
    params = minilm.read_params(files / huggingface.WEIGHTS, config)
    return TextEncoder("minilm", config.width, max_tokens, tokenizer, _compiled(minilm.Bert(config), params))


def load_clip(folder: Path) -> TextEncoder:
    """Loads the text transformer of the CLIP in a folder; it takes as many tokens as it has positions."""
    config, path = clip.read_config(folder), _tokenizer_file(folder)
    tokenizer = _read_tokenizer(path, config.positions, config.vocabulary)
    states = _compiled(clip.ClipText(config), clip.read_params(folder, config))
    name = f"clip-{huggingface.fingerprint(folder, path)}"
    return TextEncoder(name, config.width, config.positions, tokenizer, states)


def load_t5(folder: Path, max_tokens: int = 256) -> TextEncoder:
    """Loads the encoder of the T5 v1.1 or UMT5 in a folder; its relative positions do not limit `max_tokens`."""
    return _t5(folder, folder, max_tokens)


def load_pipeline_text(pipeline: Path, kind: str) -> TextEncoder:
    """Loads the T5 of a diffusers pipeline, used as PIPELINE_TEXTS[kind] says."""
    _, tokens, attends_padding = PIPELINE_TEXTS[kind]
    _check_pipeline_text(pipeline, kind)
    encoder = _t5(pipeline / "text_encoder", pipeline / "tokenizer", tokens)
    padded_to = tokens if attends_padding else 0
    return dataclasses.replace(encoder, name=f"{kind}-{encoder.name}", padded_to=padded_to, keeps_empty=True)


def name_pipeline_text(pipeline: Path, kind: str) -> tuple[str, int]:
    """Name and width of load_pipeline_text's encoder, without loading it.

    Raises UserError where it is another model's, or its tokenizer is.
    """
    config = _check_pipeline_text(pipeline, kind)
    folder, tokenizer = pipeline / "text_encoder", _tokenizer_file(pipeline / "tokenizer")
    _read_tokenizer(tokenizer, PIPELINE_TEXTS[kind].tokens, config.vocabulary)
    return f"{kind}-{PIPELINE_TEXTS[kind].model_type}-{huggingface.fingerprint(folder, tokenizer)}", config.width


def _check_pipeline_text(pipeline: Path, kind: str) -> t5.T5Config:
    """The settings of a pipeline's encoder. Raises UserError for one of another family's, which may be as wide."""
    model_type, config = t5.read_config(pipeline / "text_encoder")
    if model_type != (expected := PIPELINE_TEXTS[kind].model_type):
        raise UserError(
            f"{pipeline / 'text_encoder'} is of model_type {model_type}, {kind} was trained on {expected}: "
            "name the text encoder of the same release"
        )
    return config


def pipeline_kind(encoder: EncoderName) -> str:
    """The kind that "ltx:FOLDER" is: ltx_masked where the folder's model_index.json names LTXConditionPipeline."""
    index = encoder.folder / "model_index.json"
    if encoder.kind != "ltx" or not index.is_file():
        return encoder.kind
    return "ltx_masked" if huggingface.read_settings(index).get("_class_name") == CONDITION_PIPELINE else "ltx"


def _t5(folder: Path, tokenizer_folder: Path, max_tokens: int) -> TextEncoder:
    (model_type, config), path = t5.read_config(folder), _tokenizer_file(tokenizer_folder)
    tokenizer = _read_tokenizer(path, max_tokens, config.vocabulary)
    states = _compiled(t5.T5Encoder(config), t5.read_params(folder, config, keep_bfloat16=True))
    name = f"{model_type}-{huggingface.fingerprint(folder, path)}"
    return TextEncoder(name, config.width, max_tokens, tokenizer, states)


LOADERS: dict[str, Callable[[Path], TextEncoder]] = {"clip": load_clip, "t5": load_t5}


def _tokenizer_file(folder: Path) -> Path:
    for name in huggingface.TOKENIZERS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder / huggingface.TOKENIZERS[0]} is missing: save the model's tokenizer there")


def _read_tokenizer(path: Path, max_tokens: int, vocabulary: int) -> Tokenizer:
    tokenizer = read_spiece(path) if path.suffix == ".model" else Tokenizer.from_file(str(path))
    # JAX looks up an id beyond the embedding table as NaN. Tables are a little longer than their vocabularies.
    if not LEAST_KNOWN * vocabulary <= tokenizer.get_vocab_size() <= vocabulary:
        raise UserError(
            f"{path} has {tokenizer.get_vocab_size()} tokens, the model knows {vocabulary}: take both from one model"
        )
    # The file's own settings may pad, and truncate at another length.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _compiled(module: nn.Module, params: dict[str, Any]) -> Callable[[TokenIds, TextMask], TextStates]:
    return functools.partial(jax.jit(module.apply), {"params": over_local_devices(params)})


def over_local_devices(params: dict[str, Any], least: int = SHARDED_BYTES) -> dict[str, Any]:
    """Parameters on a device, or of `least` bytes or more on all of this process's, matrices cut along their last axis.

    Each device receives its own part alone.
    """
    devices = jax.local_devices()
    if len(devices) == 1 or sum(x.nbytes for x in jax.tree.leaves(params)) < least:
        placed_whole: dict[str, Any] = jax.device_put(params, devices[0])
        return placed_whole
    mesh = Mesh(np.array(devices), ("local",))

    def put(x: Any) -> jax.Array:
        spec = PartitionSpec(*[None] * (x.ndim - 1), "local") if x.ndim > 1 and x.shape[-1] % len(devices) == 0 else ()
        placed: jax.Array = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
        return placed

    sharded: dict[str, Any] = jax.tree.map(put, params)
    return sharded


def pad(
    states: list[CaptionStates], length: int
) -> tuple[Float32[np.ndarray, "b {length} e"], Bool[np.ndarray, "b {length}"]]:
    """Batches captions' states: (states [b length e], zero in padding; mask [b length], True = token).

    Raises UserError where a caption has more than `length` tokens.
    """
    longest = max(map(len, states))
    if longest > length:
        raise UserError(
            f"a caption of {longest} tokens does not fit into {length}: shorten it, or train with text_tokens={longest}"
        )
    mask = np.arange(length) < np.array([len(tokens) for tokens in states])[:, None]
    padded = np.zeros((*mask.shape, states[0].shape[-1]), np.float32)
    padded[mask] = np.concatenate(states)
    return padded, mask
