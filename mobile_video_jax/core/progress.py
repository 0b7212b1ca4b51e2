"""Progress of a long task on stderr: steps done, their rate, time left."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 5.0  # seconds between lines of `tracked`
STILL_EVERY = 30.0  # seconds between lines of a `phase` that gives no other sign


def say(text: str) -> None:
    """Prints a line of progress."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Rate and estimated time of a task of `total` steps, measured since the last report."""

    def __init__(self, name: str, total: int, *, done: int = 0, write: Callable[[str], None] = say):
        self._name, self._total, self._write = name, total, write
        self._last_done, self._last_time = done, time.monotonic()

    def report(self, done: int, text: str = "") -> float:
        """Prints a line for `done` steps and returns the rate in steps a second."""
        now = time.monotonic()
        rate = (done - self._last_done) / max(now - self._last_time, 1e-9)
        remaining = duration((self._total - done) / rate) if rate else "?"
        self._write(f"{self._name} {done}/{self._total}  {text}  {rate:.2f}/s  {remaining} left")
        self._last_done, self._last_time = done, now
        return rate

    def skip_time(self) -> None:
        """Leaves the time since the last report out of the next rate (an evaluation, a save)."""
        self._last_time = time.monotonic()


def tracked(name: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with a line of progress every few seconds and at the end."""
    progress, last = Progress(name, total), time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done == total or time.monotonic() - last > EVERY:
            progress.report(done)
            last = time.monotonic()


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Says that a phase begins, every half minute that it still runs, and how long it took."""
    started, ended = time.monotonic(), threading.Event()

    def still_running() -> None:
        while not ended.wait(STILL_EVERY):
            say(f"{name}: {duration(time.monotonic() - started)} so far")

    say(f"{name} …")
    thread = threading.Thread(target=still_running, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    say(f"{name}: {time.monotonic() - started:.1f} s")
