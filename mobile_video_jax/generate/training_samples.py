"""Clips generated for held-out captions while a denoiser trains, at little cost."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.data.video.write import write_mp4
from mobile_video_jax.diffusion.guidance import EmptyCaption, null_text
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.prompts import Request, file_names
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.latents.store import Record, read_manifest, records
from mobile_video_jax.metrics.clip_scores import Caption, Scorer
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.vae import VaeBundle, on_mesh
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.text.encoder import pad


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSamples:
    """Samples latents for the captions of `records`, the i-th with seed i, and decodes them with `vae`.

    `empty` as in diffusion.guidance.null_text.
    """

    denoiser: Denoiser
    config: SampleConfig
    records: Sequence[Record]
    vae: VaeBundle
    world: World | None
    empty: EmptyCaption | None = None

    def write(self, params: Any, out: Path) -> dict[str, float]:
        """Writes the clips of these parameters into `out`, and returns the means of their scores."""
        clips = self._generate(params)
        captions = [Caption(record["id"], record["caption"], record["attributes"]) for record in self.records]
        if jax.process_index() == 0:
            names = file_names([Request(caption.text, i) for i, caption in enumerate(captions)])
            for name, frames in zip(names, clips, strict=True):
                write_mp4(out / f"{name}.mp4", frames, self.denoiser.sampling.frame_rate or FRAME_RATE)
        scores = Scorer(self.world)(clips, captions).per_clip
        return {f"sample_{metric.key}": float(np.mean(values)) for metric, values in scores.items()}

    def _generate(self, params: Any) -> Clips:
        text = pad([record["text_states"] for record in self.records], self.denoiser.config.text_tokens)
        return self._decode(multihost_utils.process_allgather(self._latents(params, *text), tiled=True))

    @functools.cached_property
    def _latents(self) -> Callable[..., jax.Array]:
        @jax.jit
        def sample(params: Any, text: jax.Array, mask: jax.Array) -> jax.Array:
            keys = jax.vmap(jax.random.key)(jnp.arange(len(self.records)))
            noise = jax.vmap(lambda key: jax.random.normal(key, self.denoiser.latent_shape))(keys)
            empty = null_text(text, mask, self.empty)
            return sample_latents(self.denoiser.network, self.config, params, noise, text, mask, empty)

        return sample

    @functools.cached_property
    def _decode(self) -> Callable[[np.ndarray], Clips]:
        return on_mesh(self.vae, make_mesh(MeshConfig(), jax.local_devices()[:1]))[1]


def first_captions(data: Path, count: int) -> tuple[list[Record], World | None]:
    """The first records of an encoded data set's validation split, and its world if it has one."""
    world = read_manifest(data).get("source", {}).get("world")
    return list(itertools.islice(records(data, "validation"), count)), world and from_mapping(World, world)
