"""Reconstruction of held-out clips by a trained VAE: the decoded clips and their scores."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import tracked
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.evaluate.evaluation import check_held_out, plain_scores
from mobile_video_jax.metrics.clip_scores import RECONSTRUCTION, PerClip, mean_scores, pair_scores
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.lattice import Lattice, flat_clips, lattice
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.metrics.spectrum import dct_curve, high_frequency_share, standardised
from mobile_video_jax.models.vae import VaeBundle, check_rows, on_mesh
from mobile_video_jax.nn.clip_ops import shuffle_up
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.vae.pixels import to_bytes, to_signed

BLOCK = 8  # side of the DCT's tiles, in latent positions and in pixels

Coder = Callable[[Clips], tuple[np.ndarray, Clips]]  # a clip [1 t h w 3] to its normalised latents and decoded form


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Held-out clips with their captions, their decoded forms, and the scores of each."""

    clips: Clips
    prompts: list[str]
    decoded: Clips
    per_clip: PerClip
    spectrum: dict[str, np.ndarray]
    lattice: Lattice

    @functools.cached_property
    def scores(self) -> dict[Metric, Score]:
        """The means over clips; a clip that comes back exactly has no PSNR."""
        return mean_scores(self.per_clip)

    def numbers(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {"metrics": plain_scores(self.scores), **self.curves()}

    def curves(self) -> dict[str, Any]:
        """The figures that are not means over clips."""
        pattern = dataclasses.asdict(self.lattice)
        return {
            "spectrum": {name: curve.tolist() for name, curve in self.spectrum.items()},
            "high_frequency": {name: high_frequency_share(x) for name, x in self.spectrum.items() if x[1:].any()},
            "lattice": {name: value if math.isfinite(value) else None for name, value in pattern.items()},
        }


def reconstruct(
    bundle: VaeBundle, data: Path, split: str, clip: ClipShape, count: int, coder: Coder | None = None
) -> Reconstruction:
    """Codes and decodes up to `count` clips of a split, in one pass a clip without a `coder`.

    Raises UserError for the split that the VAE was trained on.
    """
    check_held_out(split)
    coder = coder or whole_clip_coder(bundle)
    items = list(itertools.islice(captioned_clips(ClipSource.open(data), split, clip), count))
    clips = np.stack([item["video"] for item in items])
    latents, decoded = _code(coder, clips, "reconstruct clips:")
    strides = bundle.vae.config.strides
    latents = np.asarray(shuffle_up(jnp.asarray(latents), 1, strides.patch))  # as the VAE has them, without patches
    block = min(BLOCK, *latents.shape[2:4])
    _, flat = _code(coder, flat_clips(clip), "reconstruct flat colours:")
    return Reconstruction(
        clips=clips,
        prompts=[item["caption"] for item in items],
        decoded=decoded,
        per_clip=pair_scores(RECONSTRUCTION, clips, decoded),
        spectrum={name: dct_curve(standardised(x), block) for name, x in (("latents", latents), ("rgb", clips))},
        lattice=lattice(flat, strides.of_vae.space),
    )


def whole_clip_coder(bundle: VaeBundle) -> Coder:
    """Codes a clip in one pass."""

    @jax.jit
    def code(params: Any, video: Any) -> tuple[jax.Array, jax.Array]:
        latents = bundle.encode(params, to_signed(video))
        return latents, to_bytes(bundle.decode(params, latents))

    return lambda clip: jax.device_get(code(bundle.params, clip))


def coder_over_devices(bundle: VaeBundle, clip: ClipShape, rows: int) -> Coder:
    """Codes a clip on `rows` devices of this process, which share its rows. Raises UserError where they cannot."""
    check_rows(bundle.vae.config.strides, clip, rows)
    if rows > jax.local_device_count():
        raise UserError(f"there are {jax.local_device_count()} devices, not {rows}: lower the number of rows")
    encode, decode = on_mesh(bundle, make_mesh(MeshConfig(1, 1, rows), jax.local_devices()[:rows]))

    def code(video: Clips) -> tuple[np.ndarray, Clips]:
        latents = encode(video)
        return latents, decode(latents)

    return code


def coder_in_pieces(bundle: VaeBundle, chunk: int, tile: int, overlap: int) -> Coder:
    """Codes a clip in chunks of `chunk` latent frames (0: all of them) and in tiles, as ClipCoder does."""
    coder, time = bundle.coder(tile, overlap), bundle.vae.config.strides.time

    def code(clip: Clips) -> tuple[np.ndarray, Clips]:
        # A chunk of latent frames is time times as many frames, but for the first frame, which has one of its own.
        starts = range(1 + (chunk - 1) * time, clip.shape[1], chunk * time) if chunk else ()
        latents = np.concatenate(list(coder.encode(np.split(clip, list(starts), axis=1))), axis=1)
        normal = bundle.stats.normalize(jnp.asarray(latents))
        return np.asarray(normal), bundle.decode_in_pieces(normal, chunk, tile, overlap)

    return code


def _code(coder: Coder, clips: Clips, task: str) -> tuple[np.ndarray, Clips]:
    coded = [coder(clip[None]) for clip in tracked(task, clips, len(clips))]
    latents, decoded = zip(*coded, strict=True)
    return np.concatenate(latents), np.concatenate(decoded)
