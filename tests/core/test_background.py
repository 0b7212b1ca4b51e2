"""Calls in the background."""

import time

import pytest

from mobile_video_jax.core.background import Background


def test_calls_hold_nothing_up_keep_their_order_and_are_made_before_the_end():
    background, calls, started = Background(), [], time.monotonic()
    background.call(time.sleep, 0.3)
    for number in range(3):
        background.call(calls.append, number)
    assert time.monotonic() - started < 0.2
    background.close()
    assert calls == [0, 1, 2]


def test_an_error_is_raised_by_what_follows():
    background = Background()
    background.call(int, "no number")
    with pytest.raises(ValueError, match="no number"):
        background.close()
