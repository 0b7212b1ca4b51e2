"""Which clip shape a video is cut to."""

import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.latents.buckets import assign_buckets, check_buckets, choose_bucket

WIDE, TALL, LONG, SMALL, IMAGE = map(
    ClipShape.parse, ("49x384x512", "49x512x384", "97x384x512", "49x192x256", "1x384x512")
)


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        ("60x720x1280", WIDE),  # nearest aspect ratio
        ("60x1280x720", TALL),
        ("300x720x960", LONG),  # the longest of those that fit
        ("60x240x320", SMALL),  # never enlarged where another bucket need not
        ("12x720x960", IMAGE),  # too short for everything else
    ],
)
def test_a_video_goes_to_the_bucket_that_suits_it_best(video, expected):
    assert choose_bucket([WIDE, TALL, LONG, SMALL, IMAGE], ClipShape.parse(video)) == expected


def test_a_small_video_is_enlarged_to_the_smallest_bucket_of_its_aspect_ratio():
    assert choose_bucket([WIDE, SMALL], ClipShape.parse("49x96x128")) == SMALL


def test_every_video_has_one_bucket():
    videos = [ClipShape.parse(text) for text in ("60x720x1280", "60x1280x720", "50x600x800")]
    assert assign_buckets([WIDE, TALL], videos) == {WIDE: [0, 2], TALL: [1]}


def test_a_bucket_that_no_video_fits_and_a_video_that_fits_none_are_errors():
    videos = [ClipShape.parse("60x720x1280")]
    with pytest.raises(UserError, match="no video falls into bucket 49x512x384: the longest has 60 frames"):
        check_buckets([WIDE, TALL], videos)
    with pytest.raises(UserError, match="a video has 60 frames, the shortest clip asked for 97"):
        choose_bucket([LONG], videos[0])
