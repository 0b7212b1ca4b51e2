"""Steps whose update is dropped, and the end of a run that has too many of them in a row."""

from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.errors import DIVERGED, Stopped
from mobile_video_jax.core.progress import say


class TrainingDiverged(Stopped):
    """Too many steps in a row are not finite, or the stage sees a collapse: the message says where and what to do."""

    def __init__(self, message: str):
        super().__init__(f"error: {message}", status=DIVERGED)


class SkippedSteps:
    """Counts the steps that were skipped (see train/step.py); `most` in a row are allowed."""

    def __init__(self, most: int, last: Mapping[str, Any]):
        self.total, self._most, self._in_a_row = 0, most, 0
        self._last_good = {name: last[name] for name in ("loss", "grad_norm") if name in last}

    def check(self, step: int, records: list[int], values: dict[str, float], advice: str) -> dict[str, float]:
        """The metrics to log for a step: those of the last one that was taken, where it was skipped.

        They are empty where none was taken before. Raises TrainingDiverged where one too many in a row was skipped.
        """
        if not values.pop("skipped"):
            self._in_a_row, self._last_good = 0, values
            return values | {"skipped_steps": self.total}
        self.total, self._in_a_row = self.total + 1, self._in_a_row + 1
        reason = f"loss is {values['loss']} and grad_norm {values['grad_norm']} at step {step}, batch records {records}"
        if self._in_a_row > self._most:
            row = f", the {self._in_a_row}th step in a row that cannot be taken" if self._in_a_row > 1 else ""
            raise TrainingDiverged(f"{reason}{row}: look at them, or {advice}")
        say(f"step {step} is skipped ({self._in_a_row} in a row): {reason}")
        return self._last_good and {**self._last_good, "skipped_steps": self.total}
