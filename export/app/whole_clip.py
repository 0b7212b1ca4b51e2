"""A whole clip through the packages beside JAX's clip from the same noise."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.app import golden
from export.app.runtime import App
from export.coreml.package import UNCOMPRESSED, write_golden
from export.mil.golden import EXACT_PSNR
from export.mil.verify import LEAST_PSNR
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.reconstruction import psnr


@dataclasses.dataclass(frozen=True)
class GeneratedClip:
    """Frames [t, h, w, 3] in bytes: JAX's, the packages', and those of the packages before their compression."""

    clip: str
    prompt: str
    jax: np.ndarray
    packages: np.ndarray
    fp16: np.ndarray | None

    @property
    def figures(self) -> dict[str, Any]:
        found = {"clip": self.clip, "prompt": self.prompt, "psnr": self._psnr(self.packages)}
        return found if self.fp16 is None else found | {"fp16_psnr": self._psnr(self.fp16)}

    @property
    def failures(self) -> list[str]:
        """One line if the packages' clip is not JAX's."""
        found = self._psnr(self.packages)
        wrong = f"clip {self.clip}: PSNR {found:.1f} dB is below {LEAST_PSNR:g} dB"
        return [] if found >= LEAST_PSNR else [wrong]

    def save(self, folder: Path) -> None:
        """Writes the frames as arrays `jax` and `packages` into CLIP.npz."""
        folder.mkdir(exist_ok=True)
        np.savez(folder / f"{self.clip}.npz", allow_pickle=False, jax=self.jax, packages=self.packages)

    def _psnr(self, frames: np.ndarray) -> float:
        return min(float(psnr(self.jax, frames)), EXACT_PSNR)


def generate_clip(
    folder: Path,
    manifest: dict[str, Any],
    place: int,
    generator: Generator,
    prompt: str,
    progress: Callable[[str], None],
) -> GeneratedClip:
    """Draws the clip of manifest["clips"][place] in both ways, and writes its golden arrays."""
    clip = manifest["clips"][place]
    progress(f"clip {clip['clip']}: JAX")
    expected = golden.clip_tensors(generator, prompt, manifest["sampler"]["steps"])
    noise = expected.pop("noise")
    app = App(folder, clip["function"])
    write_golden(folder / "golden" / f"clip_{clip['clip']}.npz", {"noise": noise, **app.tokens(prompt)}, expected)
    before = None
    if (folder / UNCOMPRESSED).is_dir():
        before = App(folder, clip["function"], folder / UNCOMPRESSED).draw(prompt, noise, progress)["video"]
    return GeneratedClip(clip["clip"], prompt, expected["video"], app.draw(prompt, noise, progress)["video"], before)
