"""Which windows of a video are encoded."""

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.latents.plan import EncodeOptions, window_starts


def test_windows_of_a_stride_stay_in_their_scene():
    options = EncodeOptions(window_stride=4)
    assert window_starts((0,), 20, 9, options) == [0, 4, 8]
    assert window_starts((0, 10, 14), 30, 9, options) == [0, 14, 18]


def test_several_clips_are_spread_evenly():
    assert window_starts((0,), 29, 9, EncodeOptions(clips_per_video=3)) == [3, 10, 17]
    assert window_starts((0,), 10, 9, EncodeOptions(clips_per_video=3)) == [0, 1]
    assert window_starts((0, 10), 20, 9, EncodeOptions(clips_per_video=2)) == [1, 11]


def test_options_that_contradict_are_refused():
    with pytest.raises(UserError, match="--window_stride takes every window"):
        EncodeOptions(window_stride=4, clips_per_video=2)
    with pytest.raises(UserError, match="batch_size=0: use a whole number from 1"):
        EncodeOptions(batch_size=0)
