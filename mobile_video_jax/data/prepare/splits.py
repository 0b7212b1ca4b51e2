"""Splits: shares of them, decided by their names, and never one content on both sides."""

import hashlib
from collections.abc import Sequence

from mobile_video_jax.data.prepare.folder_scan import Clip

SPLITS = ("train", "validation", "test")
SMALL = 1000  # clips; larger sets meet their shares by chance alone
LEAST = 3  # clips that a set needs to have one in each split

Unit = list[Clip]


def split_clips(clips: Sequence[Clip], validation: float, test: float) -> dict[str, list[Clip]]:
    """Sends the given shares of the clips to validation and test, and never leaves train empty.

    Clips of one group, and files of equal contents, stay together in a unit, whose place in [0, 1) depends on the
    group, or else the first name, alone. With SMALL clips or more each place has its split, whatever others come or
    go. With fewer the places decide who comes first, and shares are met, one clip at least from LEAST on. A unit that
    is larger than a share stays in train.
    """
    units = sorted(units_of(clips), key=_place)
    room = {"test": _count(test, len(clips)), "validation": _count(validation, len(clips))}
    home: dict[str, str] = {}
    for unit in units:
        if len(clips) < SMALL:
            split = next((split for split, free in room.items() if len(unit) <= free), "train")
            room[split] = room.get(split, 0) - len(unit)
        else:
            place = _place(unit)
            split = "test" if place < test else "validation" if place < test + validation else "train"
            split = split if len(unit) <= room.get(split, 0) else "train"
        home |= {clip.id: split for clip in unit}
    if clips and "train" not in home.values():
        home |= {clip.id: "train" for clip in units[-1]}
    return {split: [clip for clip in clips if home[clip.id] == split] for split in SPLITS}


def units_of(clips: Sequence[Clip]) -> list[Unit]:
    """Clips that must not be parted: of one group, of equal contents, or linked by others that are."""
    unit_of: dict[str, Unit] = {}
    for clip in clips:
        unit = [clip]
        for key in _keys(clip):
            if unit_of.setdefault(key, unit) is not unit:
                smaller, unit = sorted((unit, unit_of[key]), key=len)
                unit += smaller
                unit_of |= dict.fromkeys((key for member in smaller for key in _keys(member)), unit)
    return list({id(unit): unit for unit in unit_of.values()}.values())


def _keys(clip: Clip) -> list[str]:
    keys = {"group": clip.group, "contents": clip.sha256, "name": clip.id}
    return [f"{kind} {value}" for kind, value in keys.items() if value]


def _place(unit: Unit) -> float:
    """A number in [0, 1) that is the same for a group or a name everywhere and always."""
    key = unit[0].group or min(clip.id for clip in unit)
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48


def _count(share: float, clips: int) -> int:
    return max(round(share * clips), 1 if share and clips >= LEAST else 0)
