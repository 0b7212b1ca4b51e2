"""SIGTERM, which clusters send before they take a machine away: one process gets it, all stop after the same step."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Asked once a step whether to stop. Several processes agree through JAX's coordinator, which then owns SIGTERM."""

    def __init__(self) -> None:
        self._told = False

    def stop_after(self, step: int) -> bool:
        """Whether training ends with this step; the same answer in every process."""
        return multihost_utils.reached_preemption_sync_point(step) if jax.process_count() > 1 else self._told

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Listens for SIGTERM within the block."""
        if jax.process_count() > 1:
            yield
            return
        previous = signal.signal(signal.SIGTERM, self._tell)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _tell(self, *_: Any) -> None:
        self._told = True
