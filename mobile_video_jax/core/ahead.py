"""An iterator whose items are made ahead of their use, by a thread."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

POLL = 0.1  # seconds between looks at whether the items are still wanted


def ahead(items: Iterable[T], most: int) -> Iterator[T]:
    """The items in order, of which at most so many wait to be used. Raises what making them raises, in its place."""
    buffer: queue.Queue[tuple[str, Any]] = queue.Queue(most)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stopped.is_set():
            try:
                buffer.put((kind, value), timeout=POLL)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:  # raised again where the items are used
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (entry := buffer.get())[0] == "item":
            yield entry[1]
        if entry[0] == "error":
            raise entry[1]
    finally:
        stopped.set()
        thread.join()
