"""Looks through a folder of videos with captions.jsonl: which clips are sound, and why the others are not."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import fsspec
from etils import epath
from rich.console import Console
from rich.progress import track

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import ObjectPath
from mobile_video_jax.data.video.container import EXTENSIONS, UnreadableVideo
from mobile_video_jax.data.video.probe import VideoInfo, probe

CAPTIONS = "captions.jsonl"
MAX_BYTES = 2**31 - 2**24  # of a file: a record is a protocol buffer, and those end at 2 GiB


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video that decodes to its end and has a caption; `id` is its path relative to the folder."""

    id: str
    path: Path
    caption: str
    info: VideoInfo


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A file, or a line of captions.jsonl, that does not enter the data set, and the reason."""

    file: str
    reason: str


class _Rejected(Exception):
    """Why one file or line is left out."""


Check = Callable[[str], VideoInfo | str]


def in_threads(check: Check, names: Sequence[str]) -> Iterable[VideoInfo | str]:
    """Checks the files in threads of this process, and shows how far it is."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from track(pool.map(check, names), "checking videos", len(names), console=Console(stderr=True))


def scan(
    folder: Path, min_frames: int, check_all: Callable[[Check, Sequence[str]], Iterable[VideoInfo | str]] = in_threads
) -> tuple[list[Clip], list[Rejection]]:
    """Decodes every captioned video in full, many at a time, and sorts the sound ones from the others.

    Both lists are in the order of their names. `check_all` gives the answers to a check of all names, in order.
    Raises UserError when the folder has no captions.jsonl.
    """
    captions, rejections = read_captions(folder)
    named, clips = set(captions) | {rejection.file for rejection in rejections}, []
    names = sorted(captions)
    for name, found in zip(names, check_all(functools.partial(check, folder, min_frames), names), strict=True):
        if isinstance(found, VideoInfo):
            clips.append(Clip(name, folder / name, captions[name], found))
        else:
            rejections.append(Rejection(name, found))
    videos = set(filter(_is_video, listing(folder)))
    rejections += [Rejection(name, f"no caption: {CAPTIONS} has no line for it") for name in videos - named]
    return clips, sorted(rejections, key=lambda rejection: rejection.file)


def check(folder: Path, min_frames: int, name: str) -> VideoInfo | str:
    """What a video of the folder holds, or why it is of no use."""
    path, stored = folder / name, isinstance(folder, ObjectPath)
    try:
        if not stored and not path.resolve().is_relative_to(folder.resolve()):
            return "it links to a file outside the folder"
        if not path.is_file():
            return "there is no such file"
        if path.suffix.lower() not in EXTENSIONS:
            return f"it is not one of {', '.join(EXTENSIONS)}"
        size = file_size(path)
        if not size:
            return "the file is empty"
        if size > MAX_BYTES:
            return f"it has {size / 2**30:.1f} GiB, a record holds 2 at most: cut it into shorter files"
        info = probe(path.read_bytes() if stored else path)
    except (UnreadableVideo, OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        if stored and not isinstance(error, UnreadableVideo):
            raise  # the network, which is no fault of the file
        return str(error)
    if info.frames < min_frames:
        return f"too short: {info.frames} frames of the {min_frames} that min_frames asks for"
    return info


def file_size(path: Path) -> int:
    """Bytes of a file, here or in an object store."""
    return int(epath.Path(path).stat().length)


def listing(folder: Path) -> dict[str, tuple[int, int | str]]:
    """Bytes, and time of change or etag, of all that is below a folder, by its relative name."""
    if isinstance(folder, ObjectPath):
        store, path = fsspec.url_to_fs(str(folder))
        found = store.find(path, detail=True).items()
        return {name.removeprefix(f"{path}/"): (entry["size"], entry["etag"]) for name, entry in found}
    states = ((path, path.lstat()) for path in folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): (state.st_size, state.st_mtime_ns) for path, state in states}


def digest(folder: Path) -> str:
    """A digest that changes when a video of the folder or captions.jsonl does, as far as its listing tells."""
    found = {folder / name: state for name, state in listing(folder).items() if _is_video(name) or name == CAPTIONS}
    states = [(str(path), *found[path]) for path in sorted(found)]
    return hashlib.sha256(repr(states).encode(errors="surrogateescape")).hexdigest()[:16]


def read_captions(folder: Path) -> tuple[dict[str, str], list[Rejection]]:
    """The caption of each file inside the folder that captions.jsonl names, and the lines that are no use.

    Raises UserError when there is no captions.jsonl.
    """
    try:
        lines = (folder / CAPTIONS).read_bytes().splitlines()
    except FileNotFoundError:
        raise UserError(
            f'{folder} has no {CAPTIONS}: write a line {{"file": "a.mp4", "caption": "what it shows"}} for each video'
        ) from None
    captions: dict[str, str] = {}
    rejections = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                _add_entry(line, captions)
        except _Rejected as rejected:
            rejections.append(Rejection(f"{CAPTIONS}:{number}", str(rejected)))
    return captions, rejections


def _add_entry(line: bytes, captions: dict[str, str]) -> None:
    """Adds what one line says to `captions`."""
    try:
        entry = json.loads(line)
        name, caption = entry["file"], entry["caption"]
    except (ValueError, RecursionError):
        raise _Rejected("it is not JSON") from None
    except (KeyError, TypeError):
        raise _Rejected('it lacks "file" or "caption"') from None
    if not isinstance(name, str) or not isinstance(caption, str):
        raise _Rejected('"file" and "caption" must be text')
    if not caption.strip():
        raise _Rejected(f"the caption of {name!r} is empty")
    if not _is_text(name) or not _is_text(caption):
        raise _Rejected("it holds half a surrogate pair, which is no text")
    inside = _inside(name)
    if inside in captions:
        raise _Rejected(f"duplicate: {name!r} has a caption already")
    captions[inside] = caption.strip()


def _inside(name: str) -> str:
    """The name in its plain form, when it stays in the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _Rejected(f"{name!r} leads out of the folder")
    return str(path)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS
