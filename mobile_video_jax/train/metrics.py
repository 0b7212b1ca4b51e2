"""Metrics to WORKDIR/metrics.jsonl and to TensorBoard."""

import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from mobile_video_jax.core.files import replacing

NAME = "metrics.jsonl"


class MetricsLog:
    """Appends one JSON line a logged step. A resumed run drops the lines past the step that it resumes from.

    Of several processes one writes, and all know the `last` values.
    """

    def __init__(self, run: Path, *, resumed_step: int, write: bool = True):
        path = run / NAME
        kept = [line for line in read_metrics(run) if line["step"] <= resumed_step]
        self.last: dict[str, Any] = kept[-1] if kept else {}
        self._write = write
        if write:
            with replacing(path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self._file = path.open("a", buffering=1)
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=resumed_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Records the values of one step."""
        if not self._write:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both."""
        if self._write:
            self._file.close()
            self._board.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut short by a kill is left out."""
    path = run / NAME
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
