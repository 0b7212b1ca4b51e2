"""Metrics to WORKDIR/metrics.jsonl and to TensorBoard."""

import contextlib
import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import append, filling, replacing

NAME = "metrics.jsonl"


class MetricsLog:
    """Appends one JSON line a logged step. A resumed run drops the lines past the step that it resumes from.

    Of several processes one writes, and all know the `last` values. TensorBoard's files reach an object store on close.
    """

    def __init__(self, run: Path, *, resumed_step: int, write: bool = True):
        self._path = run / NAME
        kept = [line for line in read_metrics(run) if line["step"] <= resumed_step]
        self.last: dict[str, Any] = kept[-1] if kept else {}
        self._write, self._open = write, contextlib.ExitStack()
        if write:
            with replacing(self._path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            board = self._open.enter_context(filling(run / "tensorboard"))
            self._board = SummaryWriter(str(board), purge_step=resumed_step)
            self._open.callback(self._board.close)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Records the values of one step."""
        if not self._write:
            return
        append(self._path, json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes what TensorBoard reads."""
        self._open.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut short by a kill is left out.

    Raises UserError for a line of something else.
    """
    path = run / NAME
    lines = []
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise UserError(f"{path}, line {number}, is no line of a run's metrics: remove it")
        lines.append(line)
    return lines
