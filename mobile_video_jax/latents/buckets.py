"""Buckets: the clip shapes that videos of many sizes and lengths are cropped to, so that few programs serve all."""

import math
from collections.abc import Sequence

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError


def choose_bucket(buckets: Sequence[ClipShape], video: ClipShape) -> ClipShape:
    """The bucket of a video: of those that it is long enough for, the one nearest in aspect ratio.

    Among equals a bucket that need not enlarge the video goes first, then the one with most pixels, then the longest.
    Raises UserError where every bucket is longer than the video.
    """
    fitting = [bucket for bucket in buckets if bucket.frames <= video.frames]
    if not fitting:
        shortest = min(bucket.frames for bucket in buckets)
        raise UserError(
            f"a video has {video.frames} frames, the shortest clip asked for {shortest}: "
            f"add a shorter --clip, or prepare the data set with --min_frames={shortest}"
        )

    def rank(bucket: ClipShape) -> tuple[float, bool, int, int]:
        distance = abs(math.log(bucket.width / bucket.height) - math.log(video.width / video.height))
        pixels, available = bucket.height * bucket.width, video.height * video.width
        enlarged = pixels > available
        return round(distance, 6), enlarged, pixels if enlarged else -pixels, -bucket.frames

    return min(fitting, key=rank)


def assign_buckets(buckets: Sequence[ClipShape], videos: Sequence[ClipShape]) -> dict[ClipShape, list[int]]:
    """The numbers of the videos in each bucket; a bucket may stay empty."""
    members: dict[ClipShape, list[int]] = {bucket: [] for bucket in buckets}
    for number, video in enumerate(videos):
        members[choose_bucket(buckets, video)].append(number)
    return members


def check_buckets(buckets: Sequence[ClipShape], videos: Sequence[ClipShape]) -> None:
    """Raises UserError for a bucket that no video falls into."""
    for bucket, numbers in assign_buckets(buckets, videos).items():
        if not numbers:
            longest, largest = max(video.frames for video in videos), max(videos, key=lambda v: v.height * v.width)
            raise UserError(
                f"no video falls into bucket {bucket}: the longest has {longest} frames, the largest is "
                f"{largest.height}x{largest.width}, and each goes to the nearest shape, then to the longest clip it "
                "has frames for; leave this --clip out"
            )
