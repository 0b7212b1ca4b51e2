"""Generated clips of an evaluation, kept without loss: what an mp4 file loses would change their scores."""

import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.generate.folder import GenerationJob, generate_folder
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.clip_scores import Caption
from mobile_video_jax.parallel.distributed import wait_for_all


@dataclasses.dataclass(frozen=True)
class ClipFiles:
    """Files of generated clips, one for each caption and then more; `groups` holds the indices of one caption's clips.

    `real` reads the real clips that the captions of these indices describe.
    """

    files: Sequence[Path]
    captions: Sequence[Caption]
    groups: Sequence[Sequence[int]]
    real: Callable[[Sequence[int]], Iterable[Frames]]

    @property
    def indices(self) -> range:
        """The indices of all captions, and so of their first clips."""
        return range(len(self.captions))

    @property
    def names(self) -> list[str]:
        """The names of the mp4 files of the captions' first clips."""
        return [self.files[i].with_suffix(".mp4").name for i in self.indices]

    def generated(self, indices: Sequence[int]) -> Iterable[Frames]:
        """Reads generated clips. Raises UserError for damaged ones."""
        return (read_frames(self.files[i]) for i in indices)


def generate_clips(generator: Generator, job: GenerationJob, batch_size: int) -> list[Path]:
    """Writes a folder as generate_folder does, with NAME.npz beside NAME.mp4, and returns the former.

    Returns when all processes have written their share. Raises UserError as generate_folder does.
    """
    names = generate_folder(generator, job, batch_size, also=_write_frames)
    wait_for_all("every process has generated its clips")
    return [job.out / Path(name).with_suffix(".npz") for name in names]


def _write_frames(path: Path, frames: Frames) -> None:
    with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, frames=frames)


def read_frames(path: Path) -> Frames:
    """The frames of a generated clip. Raises UserError where it or its mp4 is missing or damaged."""
    try:
        probe(path.with_suffix(".mp4").read_bytes())  # which may be in a bucket
        with path.open("rb") as file, np.load(file) as arrays:
            return np.asarray(arrays["frames"])
    except (OSError, ValueError, KeyError, UnreadableVideo, zipfile.BadZipFile, zlib.error) as error:
        again = f"remove {path.with_suffix('')}.* and start again"
        raise UserError(f"generated clip {path} is missing or damaged ({error}): {again}") from error
