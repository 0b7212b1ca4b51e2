"""A profile of a few steps, for TensorBoard's or xprof's trace viewer."""

import contextlib
from pathlib import Path
from typing import Any

import jax

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import filling


class StepProfile:
    """Traces the steps that `steps` names, "FIRST-LAST", into a folder; none if it is empty.

    Raises UserError for another form.
    """

    def __init__(self, steps: str, folder: Path):
        first, _, last = steps.partition("-")
        if steps and not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last)):
            raise UserError(f"--config.profile={steps} is not of the form FIRST-LAST, for example 10-12")
        self._first, self._last = (int(first), int(last)) if steps else (0, 0)
        self._folder, self._trace = folder, contextlib.ExitStack()

    def before(self, step: int) -> None:
        """Starts the trace before its first step."""
        if step == self._first:
            jax.profiler.start_trace(self._trace.enter_context(filling(self._folder)))
            self._trace.callback(jax.profiler.stop_trace)

    def after(self, step: int, result: Any) -> None:
        """Ends the trace when the device has made the last step's result."""
        if step == self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a trace that still runs."""
        self._trace.close()
