"""Tells what every thread does when a step takes too long, and ends the process when it takes twice that."""

import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from mobile_video_jax.core.progress import say

HUNG = 1  # exit status


class Watchdog:
    """Writes the stacks of all threads when `seconds` have passed since the last step.

    After as long again it ends the process with status 1, on which a cluster starts the job again.

    From a thread of its own that holds Python's lock as it reads them: faulthandler, which does not, crashed the
    process now and then. A device that hangs lets Python run.
    """

    def __init__(self, seconds: int, write: Callable[[str], None] = say):
        self._seconds, self._write, self._warned = seconds, write, False
        self._due, self._closed, self._changed = math.inf, False, threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def step(self) -> None:
        """A step begins."""
        self._due, self._warned = time.monotonic() + self._seconds, False
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """No step follows."""
        self._closed = True
        with self._changed:
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                seconds_left = self._due - time.monotonic()
                if seconds_left > 0:
                    self._changed.wait(min(seconds_left, threading.TIMEOUT_MAX))
                elif self._warned:
                    self._write(f"error: a step has taken more than {2 * self._seconds} s: start the command again")
                    os._exit(HUNG)
                else:
                    self._due, self._warned = time.monotonic() + self._seconds, True
                    self._write(f"a step has taken more than {self._seconds} s\n{_stacks()}")


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(number, number)}, innermost call last:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()
        if number != threading.get_ident()
    )
