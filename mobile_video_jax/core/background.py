"""Calls that are made in order by a thread, so that slow storage holds nothing up."""

import collections
import concurrent.futures
from collections.abc import Callable
from typing import Any


class Background:
    """Makes calls one after the other. What one raises is raised by the next `call` or by `close`."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._calls: collections.deque[concurrent.futures.Future[Any]] = collections.deque()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls the function once those before have returned."""
        while self._calls and self._calls[0].done():
            self._calls.popleft().result()
        self._calls.append(self._pool.submit(function, *args))

    def close(self) -> None:
        """Waits for all calls."""
        self._pool.shutdown()
        while self._calls:
            self._calls.popleft().result()
