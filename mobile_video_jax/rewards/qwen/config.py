"""Sizes of a Qwen2.5-VL, as its config.json gives them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.weights import huggingface


@dataclasses.dataclass(frozen=True)
class VisionSizes:
    """Sizes of the vision tower."""

    depth: int
    width: int
    heads: int
    ffn: int
    out: int  # channels of a vision token in the language model
    patch: int = 14  # pixels of a patch's side
    frames: int = 2  # frames of a patch
    merge: int = 2  # patches of a vision token's side
    window: int = 112  # pixels of an attention window's side
    whole: tuple[int, ...] = (7, 15, 23, 31)  # blocks that attend to the whole frame
    tokens_per_second: int = 4  # temporal positions of a second


@dataclasses.dataclass(frozen=True)
class LanguageSizes:
    """Sizes of the language model."""

    depth: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    eps: float = 1e-6
    theta: float = 1_000_000.0
    sections: tuple[int, ...] = (16, 24, 24)  # pairs of a head that turn with time, rows and columns
    tied: bool = False  # output and input embedding are one


@dataclasses.dataclass(frozen=True)
class QwenSizes:
    """Sizes of both, and the dtype of products."""

    vision: VisionSizes
    language: LanguageSizes
    dtype: str = "bfloat16"


def read_sizes(folder: Path, dtype: str = "bfloat16") -> QwenSizes:
    """Reads config.json. Raises UserError where it is missing, of another model, or lacks a key."""
    settings = huggingface.read_config(folder, ("qwen2_5_vl",))
    text = {**settings, **settings.get("text_config", {})}
    try:
        vision = settings["vision_config"]
        rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
        theta = rope.get("rope_theta", text.get("rope_theta", LanguageSizes.theta))
        return QwenSizes(
            VisionSizes(
                depth=vision["depth"],
                width=vision["hidden_size"],
                heads=vision["num_heads"],
                ffn=vision["intermediate_size"],
                out=vision["out_hidden_size"],
                patch=vision.get("patch_size", VisionSizes.patch),
                frames=vision.get("temporal_patch_size", VisionSizes.frames),
                merge=vision.get("spatial_merge_size", VisionSizes.merge),
                window=vision.get("window_size", VisionSizes.window),
                whole=tuple(vision.get("fullatt_block_indexes", VisionSizes.whole)),
                tokens_per_second=vision.get("tokens_per_second", VisionSizes.tokens_per_second),
            ),
            _language(text, float(theta), tuple(rope.get("mrope_section", LanguageSizes.sections))),
            dtype,
        )
    except KeyError as error:
        raise UserError(f"{folder / huggingface.CONFIG} says nothing of {error}: download it again") from None


def _language(text: Mapping[str, Any], theta: float, sections: tuple[int, ...]) -> LanguageSizes:
    return LanguageSizes(
        depth=text["num_hidden_layers"],
        width=text["hidden_size"],
        heads=text["num_attention_heads"],
        kv_heads=text.get("num_key_value_heads") or text["num_attention_heads"],
        ffn=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        eps=text.get("rms_norm_eps", LanguageSizes.eps),
        theta=theta,
        sections=sections,
        tied=bool(text.get("tie_word_embeddings", False)),
    )
