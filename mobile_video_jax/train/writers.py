"""Writers that metrics and clips of a training go to: metrics.jsonl, TensorBoard, Weights & Biases."""

import contextlib
import hashlib
import importlib.util
import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import append, filling
from mobile_video_jax.core.storage import ObjectPath, upload
from mobile_video_jax.data.video.write import gif_bytes

UPLOAD_SECONDS = 60.0  # between copies of growing event files to an object store


class Writer(Protocol):
    """One place that a training writes to."""

    def write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records the values of one step."""

    def write_clips(self, step: int, clips: Mapping[str, Frames], frame_rate: float) -> None:
        """Shows clips of one step by their names, at so many frames a second."""

    def close(self) -> None:
        """Writes what is still in memory."""


class JsonLines:
    """One JSON line a step; clips are files of their own."""

    def __init__(self, path: Path):
        self._path = path

    def write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        append(self._path, json.dumps({"step": step, **values}) + "\n")

    def write_clips(self, step: int, clips: Mapping[str, Frames], frame_rate: float) -> None:
        return

    def close(self) -> None:
        return


class TensorBoard:
    """Event files in a folder, with clips as animations.

    An object store gets them whole every UPLOAD_SECONDS, so that a kill loses no more, and on close.
    """

    def __init__(self, folder: Path, resumed_step: int):
        self._open, self._folder, self._uploaded = contextlib.ExitStack(), folder, -math.inf
        self._local = self._open.enter_context(filling(folder))
        self._board = SummaryWriter(str(self._local), purge_step=resumed_step)
        self._open.callback(self._board.close)

    def write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._upload()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def _upload(self) -> None:
        """Copies what was written before; a thread of tensorboardX has brought it into the local file meanwhile."""
        if isinstance(self._folder, ObjectPath) and time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self._board.flush()
            upload(self._local, self._folder)
            self._uploaded = time.monotonic()

    def write_clips(self, step: int, clips: Mapping[str, Frames], frame_rate: float) -> None:
        # Not add_video, which needs moviepy for the same gif.
        for name, frames in clips.items():
            _, height, width, channels = frames.shape
            gif = gif_bytes(frames, frame_rate)
            image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=gif)
            self._board.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def close(self) -> None:
        self._open.close()


class WeightsAndBiases:
    """A run of a project there, the same one when the training resumes; WANDB_MODE=offline keeps it on this disk."""

    def __init__(self, project: str, run: Path, config: Mapping[str, Any]):
        import wandb

        self._wandb, self._open = wandb, contextlib.ExitStack()
        self._run = wandb.init(
            project=project,
            name=run.name,
            id=hashlib.sha256((run / "run.json").read_bytes()).hexdigest()[:16],
            resume="allow",
            config=dict(config),
            dir=str(self._open.enter_context(filling(run))),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def write_clips(self, step: int, clips: Mapping[str, Frames], frame_rate: float) -> None:
        videos = {name: io.BytesIO(gif_bytes(frames, frame_rate)) for name, frames in clips.items()}
        self._run.log({name: self._wandb.Video(gif, format="gif") for name, gif in videos.items()}, step=step)

    def close(self) -> None:
        self._run.finish()
        self._open.close()


def check_wandb(project: str) -> None:
    """Raises UserError where a project is named and the package is missing."""
    if project and importlib.util.find_spec("wandb") is None:
        raise UserError(f"--config.wandb={project} needs a package: pip install -e '.[wandb]'")
