"""Accounts of a run's time, so that the share that trains (its goodput) is known."""

import contextlib
import time
from collections.abc import Iterator

from jax import monitoring

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class Timers:
    """Seconds by kind of work. What a nested block or the compiler takes counts for that alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = 0.0  # seconds of blocks that ended within the open one

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        """Times a block."""
        started, outside, self._inner = time.monotonic(), self._inner, 0.0
        try:
            yield
        finally:
            elapsed = time.monotonic() - started
            self._add(kind, elapsed - self._inner)
            self._inner = outside + elapsed

    @contextlib.contextmanager
    def compilation(self) -> Iterator[None]:
        """Counts what JAX compiles within the block as "compile"."""

        def heard(event: str, duration_secs: float, **_: str | int) -> None:
            if event == COMPILE_EVENT:
                self._add("compile", duration_secs)
                self._inner += duration_secs

        monitoring.register_event_duration_secs_listener(heard)
        try:
            yield
        finally:
            monitoring.unregister_event_duration_listener(heard)

    def _add(self, kind: str, seconds: float) -> None:
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
