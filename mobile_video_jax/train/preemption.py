"""Leaving early with everything saved: on Ctrl-C, and on SIGTERM, which clusters send before they take a machine."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from mobile_video_jax.core.errors import Stopped


class Preemption:
    """Says once a step whether to stop.

    Handlers only set a flag: an exception would be lost where it is raised within a callback of JAX's. Several
    processes agree on the step through JAX's coordinator, which then owns SIGTERM.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def stop_after(self, step: int) -> bool:
        """True where training ends with this step; the same answer in every process."""
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.signal_number is not None

    def check(self, done: str) -> None:
        """Ends a process that trains alone where there is no step to stop after."""
        if self.signal_number is not None and jax.process_count() == 1:
            raise self.stop(done)

    def stop(self, done: str) -> Stopped:
        """The end of the command, with a word on what is done."""
        number = self.signal_number or signal.SIGTERM  # another process of the job may have got it
        return Stopped(f"{signal.Signals(number).name}: {done}; the same command resumes from there", 128 + number)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Listens within the block to SIGTERM and, unless the process was started to ignore it, to SIGINT."""
        handlers: dict[int, Any] = {}
        if jax.process_count() == 1:
            handlers[signal.SIGTERM] = self._stop
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            handlers[signal.SIGINT] = self._interrupt
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _: Any) -> None:
        self.signal_number = number

    def _interrupt(self, number: int, _: Any) -> None:
        """Takes SIGTERM's way; at once when pressed again."""
        if self.signal_number == number:
            os._exit(128 + number)
        self.signal_number = number
        # Not `print`: the handler may have interrupted one.
        os.write(2, b"interrupted: training ends after this step and saves it; Ctrl-C again leaves at once\n")
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
