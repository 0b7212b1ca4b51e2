"""Items made ahead of their use."""

import threading
import time

import pytest

from mobile_video_jax.core.ahead import ahead


def test_items_come_in_order_and_errors_in_their_place():
    def items():
        yield from range(3)
        raise ValueError("broken")

    items_read = []
    with pytest.raises(ValueError, match="broken"):
        for item in ahead(items(), 1):
            items_read.append(item)
    assert items_read == [0, 1, 2] and list(ahead([], 1)) == []


def test_making_and_using_take_place_at_the_same_time():
    def slow():
        for i in range(5):
            time.sleep(0.1)
            yield i

    started = time.monotonic()
    for _ in ahead(slow(), 2):
        time.sleep(0.1)
    assert time.monotonic() - started < 0.85  # one after the other takes a second


def test_no_thread_stays_where_the_items_are_not_used_up():
    before = threading.active_count()
    some = ahead(iter(int, 1), 2)
    next(some)
    some.close()
    assert threading.active_count() == before
