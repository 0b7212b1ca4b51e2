"""How good a trained VAE is, on clips it has not seen."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.evals.interval import Score, bootstrap_mean
from mobile_video_jax.evals.lattice import Lattice, flat_clips, lattice
from mobile_video_jax.evals.reconstruction import flicker, psnr, ssim
from mobile_video_jax.evals.spectrum import dct_curve, high_frequency_share
from mobile_video_jax.stages.bundle import VaeBundle
from mobile_video_jax.vae.pixels import to_bytes, to_signed

BLOCK = 8  # side of the DCT's tiles, in latent places and in pixels


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Held-out clips, what the VAE makes of them, and the scores."""

    clips: Clips
    decoded: Clips
    psnr: np.ndarray
    scores: dict[str, Score]
    spectrum: dict[str, np.ndarray]
    lattice: Lattice

    def numbers(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {
            "metrics": {name: dataclasses.asdict(score) for name, score in self.scores.items()},
            "spectrum": {name: curve.tolist() for name, curve in self.spectrum.items()},
            "high_frequency": {name: high_frequency_share(x) for name, x in self.spectrum.items() if len(x) > 1},
            "lattice": dataclasses.asdict(self.lattice),
        }


def judge(bundle: VaeBundle, data: Path, split: str, clip: ClipShape, count: int) -> Judgement:
    """Codes and decodes up to `count` clips of a split. Raises UserError for the split the VAE was trained on."""
    if split == "train":
        raise UserError("a VAE is judged on clips it has not seen: use the split validation or test")
    clips = np.stack([item["video"] for item in itertools.islice(captioned_clips(data, split, clip), count)])
    latents, decoded = _code(bundle, clips)
    per_clip = {"psnr": psnr(clips, decoded), "ssim": ssim(clips, decoded)}
    if clip.frames > 1:
        per_clip["flicker"] = flicker(clips, decoded)
    block = min(BLOCK, *latents.shape[2:4])
    _, flat = _code(bundle, flat_clips(clip))
    return Judgement(
        clips,
        decoded,
        per_clip["psnr"],
        {name: bootstrap_mean(values) for name, values in per_clip.items()},
        {"latents": dct_curve(latents, block), "rgb": dct_curve(clips / np.float32(127.5) - 1, block)},
        lattice(flat, bundle.vae.config.strides.space),
    )


def _code(bundle: VaeBundle, clips: Clips) -> tuple[np.ndarray, Clips]:
    """Normalised latents and decoded clips, one clip at a time."""

    @jax.jit
    def code(params: Any, video: Any) -> tuple[jax.Array, jax.Array]:
        latents = bundle.encode(params, to_signed(video))
        return latents, to_bytes(bundle.decode(params, latents))

    latents, decoded = zip(*(jax.device_get(code(bundle.params, row[None])) for row in clips), strict=True)
    return np.concatenate(latents), np.concatenate(decoded)
