"""How good a trained VAE is, on clips it has not seen."""

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
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.evaluate.protocol import check_held_out
from mobile_video_jax.metrics.clip_scores import PerClip, mean_scores
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.lattice import Lattice, flat_clips, lattice
from mobile_video_jax.metrics.reconstruction import flicker, psnr, ssim
from mobile_video_jax.metrics.spectrum import dct_curve, high_frequency_share
from mobile_video_jax.models.vae import VaeBundle, check_rows, on_mesh
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.vae.pixels import to_bytes, to_signed

BLOCK = 8  # side of the DCT's tiles, in latent places and in pixels


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Held-out clips with their ids and captions, what the VAE makes of them, and the scores of each."""

    clips: Clips
    ids: list[str]
    prompts: list[str]
    decoded: Clips
    per_clip: PerClip
    spectrum: dict[str, np.ndarray]
    lattice: Lattice

    @functools.cached_property
    def scores(self) -> dict[str, Score]:
        """The means over clips; a clip that comes back exactly has no PSNR."""
        return mean_scores(self.per_clip)

    def numbers(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {"metrics": {name: dataclasses.asdict(score) for name, score in self.scores.items()}, **self.curves()}

    def curves(self) -> dict[str, Any]:
        """The figures that are not means over clips."""
        found = dataclasses.asdict(self.lattice)
        return {
            "spectrum": {name: curve.tolist() for name, curve in self.spectrum.items()},
            "high_frequency": {name: high_frequency_share(x) for name, x in self.spectrum.items() if len(x) > 1},
            "lattice": {name: value if math.isfinite(value) else None for name, value in found.items()},
        }


Code = Callable[[Clips], tuple[np.ndarray, Clips]]


def judge(
    bundle: VaeBundle, data: Path, split: str, clip: ClipShape, count: int, code: Code | None = None
) -> Judgement:
    """Codes and decodes up to `count` clips of a split. Raises UserError for the split the VAE was trained on.

    `code` maps a clip [1 t h w 3] to its normalised latents and its decoded form; in one pass if None.
    """
    check_held_out(split)
    code = code or whole_clips(bundle)
    items = list(itertools.islice(captioned_clips(data, split, clip), count))
    clips = np.stack([item["video"] for item in items])
    latents, decoded = _each(code, clips)
    per_clip = {"psnr": psnr(clips, decoded), "ssim": ssim(clips, decoded)}
    if clip.frames > 1:
        per_clip["flicker"] = flicker(clips, decoded)
    block = min(BLOCK, *latents.shape[2:4])
    _, flat = _each(code, flat_clips(clip))
    return Judgement(
        clips,
        [item["id"] for item in items],
        [item["caption"] for item in items],
        decoded,
        per_clip,
        {"latents": dct_curve(latents, block), "rgb": dct_curve(clips / np.float32(127.5) - 1, block)},
        lattice(flat, bundle.vae.config.strides.space),
    )


def whole_clips(bundle: VaeBundle) -> Code:
    """Codes a clip in one pass."""

    @jax.jit
    def code(params: Any, video: Any) -> tuple[jax.Array, jax.Array]:
        latents = bundle.encode(params, to_signed(video))
        return latents, to_bytes(bundle.decode(params, latents))

    return lambda clip: jax.device_get(code(bundle.params, clip))


def over_devices(bundle: VaeBundle, clip: ClipShape, rows: int) -> Code:
    """Codes a clip on `rows` devices of this process, which share its rows. Raises UserError where they cannot."""
    check_rows(bundle, clip, rows)
    if rows > jax.local_device_count():
        raise UserError(f"there are {jax.local_device_count()} devices, not {rows}: lower the number of rows")
    encode, decode = on_mesh(bundle, make_mesh(MeshConfig(1, 1, rows), jax.local_devices()[:rows]))

    def code(video: Clips) -> tuple[np.ndarray, Clips]:
        latents = encode(video)
        return latents, decode(latents)

    return code


def pieces(bundle: VaeBundle, chunk: int, tile: int, overlap: int) -> Code:
    """Codes a clip in chunks of `chunk` latent frames (0: all of them) and in tiles, as ClipCoder does."""
    coder, time = bundle.coder(tile, overlap), bundle.vae.config.strides.time

    def code(clip: Clips) -> tuple[np.ndarray, Clips]:
        # A chunk of latent frames is time times as many frames, but for the first frame, which has one of its own.
        cuts = range(1 + (chunk - 1) * time, clip.shape[1], chunk * time) if chunk else ()
        latents = np.concatenate(list(coder.encode(np.split(clip, list(cuts), axis=1))), axis=1)
        normal = bundle.stats.normalize(jnp.asarray(latents))
        return np.asarray(normal), bundle.decode_in_pieces(normal, chunk, tile, overlap)

    return code


def _each(code: Code, clips: Clips) -> tuple[np.ndarray, Clips]:
    latents, decoded = zip(*(code(clip[None]) for clip in clips), strict=True)
    return np.concatenate(latents), np.concatenate(decoded)
