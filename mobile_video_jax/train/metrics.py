"""The log of a training: what was written before it resumes, and the writers of what comes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.train.writers import JsonLines, TensorBoard, WeightsAndBiases, Writer

NAME = "metrics.jsonl"


class MetricsLog:
    """Metrics and clips of logged steps, to RUN/metrics.jsonl, RUN/tensorboard and a project of Weights & Biases.

    A resumed run drops the lines past the step that it resumes from. Of several processes one writes, and all know
    the `last` values.
    """

    def __init__(
        self,
        run: Path,
        *,
        resumed_step: int,
        write: bool = True,
        project: str = "",
        config: Mapping[str, Any] | None = None,
    ):
        before = [line for line in read_metrics(run) if line["step"] <= resumed_step]
        self.last: dict[str, Any] = before[-1] if before else {}
        self._writers: list[Writer] = []
        if write:
            with replacing(run / NAME) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in before))
            self._writers += [JsonLines(run / NAME), TensorBoard(run / "tensorboard", resumed_step)]
            if project:
                self._writers.append(WeightsAndBiases(project, run, config or {}))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Records the values of one step."""
        for writer in self._writers:
            writer.write_metrics(step, values)

    def write_clips(self, step: int, clips: Mapping[str, Frames], frame_rate: float) -> None:
        """Shows the clips of one step."""
        for writer in self._writers:
            writer.write_clips(step, clips, frame_rate)

    def close(self) -> None:
        """Writes what is still in memory."""
        for writer in self._writers:
            writer.close()


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
