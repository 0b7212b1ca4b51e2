"""Drawn clips that are kept as drawn, for scores that what an mp4 file loses would change."""

import dataclasses
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.arrays import Clips, Frames
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.folder import GenerationJob, generate_folder
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request, file_names
from mobile_video_jax.parallel.distributed import wait_for_all


@dataclasses.dataclass(frozen=True, eq=False)
class _Keeping(Generator):
    """A generator that writes the frames of each request's clip into its file before it hands them on."""

    files: Mapping[Request, Path]

    def generate_batches(
        self, requests: Sequence[Request], config: SampleConfig, batch_size: int = 16
    ) -> Iterator[Clips]:
        waiting = iter(requests)
        for clips in super().generate_batches(requests, config, batch_size):
            for frames, request in zip(clips, waiting, strict=False):
                with replacing(self.files[request]) as temporary, temporary.open("wb") as file:
                    np.savez_compressed(file, frames=frames)
            yield clips


def draw_clips(generator: Generator, job: GenerationJob, batch_size: int) -> list[Path]:
    """Writes a folder as generate_folder does, with NAME.npz beside NAME.mp4, and returns the former.

    No two requests may be equal. Returns when all processes have written their share. Raises UserError as that does.
    """
    files = [job.out / f"{name}.npz" for name in file_names(job.requests)]
    parts = {field.name: getattr(generator, field.name) for field in dataclasses.fields(generator)}
    keeping = _Keeping(**parts, files=dict(zip(job.requests, files, strict=True)))
    generate_folder(keeping, job, batch_size)
    wait_for_all("every process has drawn its clips")
    return files


def read_drawn(path: Path) -> Frames:
    """The frames of a drawn clip. Raises UserError where it or its mp4 is missing or damaged."""
    try:
        probe(path.with_suffix(".mp4"))
        with path.open("rb") as file, np.load(file) as arrays:
            return arrays["frames"]
    except (OSError, ValueError, KeyError, UnreadableVideo, zipfile.BadZipFile, zlib.error) as error:
        again = f"remove {path.with_suffix('')}.* and start again"
        raise UserError(f"drawn clip {path} is missing or damaged ({error}): {again}") from error
