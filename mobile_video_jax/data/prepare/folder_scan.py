"""Looks through a folder of captioned videos: which clips are sound, and why the others are not."""

import dataclasses
import functools
import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
from etils import epath
from rich.console import Console
from rich.progress import track

from mobile_video_jax.core.storage import ObjectPath
from mobile_video_jax.data.prepare.captions import Rejection
from mobile_video_jax.data.prepare.layouts import holds_data, is_video, read_captions
from mobile_video_jax.data.prepare.members import Member, locate
from mobile_video_jax.data.video.container import EXTENSIONS, UnreadableVideo
from mobile_video_jax.data.video.probe import VideoInfo, probe
from mobile_video_jax.data.video.structure.buffer import small_as_bytes

MAX_BYTES = 2**31 - 2**24  # of a file: a record is a protocol buffer, and those end at 2 GiB
MISSING = "there is no such file"


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video that decodes to its end and has a caption.

    `id` is its path relative to the folder, `sha256` the digest of its bytes, `origin` where its caption is written.
    Clips of one `group` (a film, say) stay in one split.
    """

    id: str
    file: Path | Member
    caption: str
    info: VideoInfo
    sha256: str = ""
    origin: str = ""
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Checked:
    """A sound video: what it holds and the digest of its bytes."""

    info: VideoInfo
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"info": self.info.to_json(), "sha256": self.sha256}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Checked":
        """Reads what `to_json` gave."""
        return cls(VideoInfo.from_json(values["info"]), values["sha256"])


@dataclasses.dataclass(frozen=True)
class Check:
    """Decodes a video of the folder and returns what it holds, or why it is of no use."""

    folder: Path
    min_frames: int
    fps: float = 0.0
    scenes: bool = False

    def __call__(self, name: str) -> Checked | str:
        stored = isinstance(self.folder, ObjectPath)
        try:
            return self._refusal(name) or self._checked(name, stored)
        except (UnreadableVideo, OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
            if stored and not isinstance(error, UnreadableVideo):
                raise  # the network, which is no fault of the file
            return str(error)

    def _refusal(self, name: str) -> str:
        """The fault of a file that shows before it is opened."""
        file = locate(self.folder, name)
        if isinstance(file, Path):
            outside = not isinstance(file, ObjectPath) and not file.resolve().is_relative_to(self.folder.resolve())
            if outside:
                return "it links to a file outside the folder"
            if not file.is_file():
                return MISSING
        if not is_video(name):
            return f"it is not one of {', '.join(EXTENSIONS)}"
        size = file.size if isinstance(file, Member) else file_size(file)
        if size > MAX_BYTES:
            return f"it has {size / 2**30:.1f} GiB, a record holds 2 at most: cut it into shorter files"
        return "" if size else "the file is empty"

    def _checked(self, name: str, stored: bool) -> Checked | str:
        file = locate(self.folder, name)
        source = small_as_bytes(file) if isinstance(file, Path) and not stored else file.read_bytes()
        info = probe(source, self.fps, scenes=self.scenes)
        if info.longest < self.min_frames:
            part = "" if info.longest == info.frames else " in its longest scene"
            return f"too short: {info.longest} frames{part} of the {self.min_frames} that min_frames asks for"
        return Checked(info, _digest(source))


def in_threads(check: Check, names: Sequence[str]) -> Iterable[Checked | str]:
    """Checks the files in threads of this process, and shows how far it is."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from track(pool.map(check, names), "checking videos", len(names), console=Console(stderr=True))


def scan(
    check: Check, check_all: Callable[[Check, Sequence[str]], Iterable[Checked | str]] = in_threads
) -> tuple[list[Clip], list[Rejection]]:
    """Decodes every captioned video in full, many at a time, and sorts the sound ones from the others.

    Both lists are in the order of their names. `check_all` returns the answers of a check on all names, in order.
    Raises UserError when the folder has no captions.
    """
    files = listing(check.folder)
    captions = read_captions(check.folder, files)
    clips, rejections = [], list(captions.rejections)
    names = sorted(captions.entries)
    for name, answer in zip(names, check_all(check, names), strict=True):
        if isinstance(answer, Checked):
            entry = captions.entries[name]
            file = locate(check.folder, name)
            clips.append(Clip(name, file, entry.caption, answer.info, answer.sha256, entry.origin, entry.group))
        else:
            rejections.append(Rejection(name, answer + (_hint(name, files) if answer == MISSING else "")))
    known = set(captions.entries) | {rejection.file for rejection in rejections}
    rejections += [
        Rejection(name, f"no caption: {captions.lacking}") for name in files if is_video(name) and name not in known
    ]
    return clips, sorted(rejections, key=lambda rejection: rejection.file)


def file_size(path: Path) -> int:
    """Bytes of a file, here or in an object store."""
    return int(epath.Path(path).stat().length)


def listing(folder: Path) -> dict[str, tuple[int, int | str]]:
    """Bytes, and time of change or etag, of all that is below a folder, by its relative name."""
    if isinstance(folder, ObjectPath):
        store, path = fsspec.url_to_fs(str(folder))
        entries = store.find(path, detail=True).items()
        return {name.removeprefix(f"{path}/"): (entry["size"], entry["etag"]) for name, entry in entries}
    states = ((path, path.lstat()) for path in folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): (state.st_size, state.st_mtime_ns) for path, state in states}


def digest(folder: Path) -> str:
    """A digest that changes when a video of the folder or its captions do, as far as its listing tells."""
    files = {folder / name: state for name, state in listing(folder).items() if holds_data(name)}
    states = [(str(path), *files[path]) for path in sorted(files)]
    return hashlib.sha256(repr(states).encode(errors="surrogateescape")).hexdigest()[:16]


def _digest(source: bytes | Path) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hint(name: str, files: Mapping[str, Any]) -> str:
    """A file whose name looks the same: written with other code points, in another case or with backslashes."""
    twins = [other for other in files if _looks(other) == _looks(name)]
    return f", but {twins[0]!r} looks the same: its case, slashes or Unicode form (NFC, NFD) differ" if twins else ""


@functools.cache
def _looks(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
