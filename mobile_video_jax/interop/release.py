"""Published weights, opened: what an import needs to know of a release, whatever its family."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.interop.diffusers_folder import Component
from mobile_video_jax.interop.mapping import Source
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.vae.coder import Network
from mobile_video_jax.vae.latent_stats import LatentStats

# What an export writes again as it was: the pipeline's class and settings, and its scheduler's.
Origin = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Published:
    """A network's published tensors by name, each read when it is sliced, and the source of each of our parameters."""

    tensors: dict[str, Any]
    sources: dict[str, Source]


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of a release as settings of our networks."""

    model: DitConfig
    transformers: tuple[Published, ...]  # one, or the experts of high and of low noise
    vae_network: Network
    vae: Published
    stats: LatentStats
    channels: int  # of the latents that the transformer takes
    text_width: int  # of the text states that it takes
    text: Path  # folder with text_encoder/ and tokenizer/
    text_kind: str  # kind of PIPELINE_TEXTS
    times: dict[str, Any]  # the keys of DenoiserConfig for its times
    sampling: Sampling
    origin: Origin
    starts_from_images: bool = False  # whether the first latent frame may be given, at time 0


@dataclasses.dataclass(frozen=True)
class PipelineFolder:
    """A run as the folder of a pipeline of diffusers: classes, settings and sources of its parts."""

    index: dict[str, Any]  # model_index.json without its components
    scheduler: dict[str, Any]
    transformer: dict[str, Any]  # of both, where there are two experts
    transformer_sources: dict[str, Source]
    vae: dict[str, Any]
    vae_sources: dict[str, Source]
    statistics: dict[str, np.ndarray]  # tensors of the VAE beside its network's
    text: dict[str, tuple[str, str]]  # library and class of text encoder and tokenizer
    missing: tuple[str, ...] = ()  # components that such pipelines may have, and this one does not


@dataclasses.dataclass(frozen=True)
class Release:
    """An opened release; each family has its own."""

    transformer: Component
    vae: Component
    text: Path  # folder with text_encoder/ and tokenizer/
    origin: Origin

    def parts(self, frame_rate: float | None) -> Parts:
        """The parts, for clips of `frame_rate` frames a second or the family's own."""
        raise NotImplementedError
