"""Which clips are held out."""

from pathlib import Path

import pytest

from mobile_video_jax.data.prepare.folder_scan import Clip
from mobile_video_jax.data.prepare.splits import split_clips
from mobile_video_jax.data.video.probe import VideoInfo

INFO = VideoInfo(9, 32, 32, 8.0, 1.1)


def clips(count: int, **fields) -> list[Clip]:
    """Clips that differ in all but what the functions `fields` of their numbers say."""
    functions = {"sha256": str, "group": lambda i: ""} | fields
    return [
        Clip(f"clip{i:04}.mp4", Path("a.mp4"), "a clip", INFO, functions["sha256"](i), "", functions["group"](i))
        for i in range(count)
    ]


def sizes(splits: dict) -> tuple[int, int, int]:
    return tuple(len(splits[split]) for split in ("train", "validation", "test"))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (6, (4, 1, 1)),
        (10, (8, 1, 1)),
        (22, (18, 2, 2)),
        (300, (240, 30, 30)),
    ],
)
def test_small_sets_meet_their_shares(count, expected):
    assert sizes(split_clips(clips(count), 0.1, 0.1)) == expected


def test_every_clip_is_in_one_split_in_order_and_the_same_every_time():
    every = clips(40)
    splits = split_clips(every, 0.3, 0.2)
    assert sorted(clip.id for part in splits.values() for clip in part) == [clip.id for clip in every]
    assert all(part == sorted(part, key=lambda clip: clip.id) for part in splits.values())
    assert splits == split_clips(every, 0.3, 0.2)


def test_a_clip_of_a_large_set_stays_where_it_is_when_others_come():
    full, fewer = (split_clips(every, 0.1, 0.1) for every in (clips(3000), clips(3000)[500:]))
    for split, part in fewer.items():
        assert part == [clip for clip in full[split] if clip.id >= "clip0500"]
    assert all(abs(size - 300) < 60 for size in sizes(full)[1:])


def test_equal_contents_and_groups_stay_together():
    every = clips(60, sha256=lambda i: str(i // 2), group=lambda i: f"film {i // 6}" if i < 30 else "")
    home = {clip.id: split for split, part in split_clips(every, 0.2, 0.2).items() for clip in part}
    for clip in every:
        for other in every:
            if clip.sha256 == other.sha256 or (clip.group and clip.group == other.group):
                assert home[clip.id] == home[other.id]
    assert set(home.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(("validation", "test"), [(0.99, 0.0), (0.0, 0.99), (0.5, 0.49)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_train_is_never_empty(validation, test, count):
    splits = split_clips(clips(count), validation, test)
    assert splits["train"] and sum(sizes(splits)) == count
    assert split_clips(clips(count, group=lambda i: "one film"), validation, test)["train"]
