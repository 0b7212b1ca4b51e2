"""Looks through a folder of videos with captions.jsonl: which clips are sound, and why the others are not."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.progress import track

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.video_file import EXTENSIONS, UnreadableVideo, VideoInfo, probe

CAPTIONS = "captions.jsonl"


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


def scan(folder: Path, min_frames: int) -> tuple[list[Clip], list[Rejection]]:
    """Decodes every captioned video in full, many at a time, and sorts the sound ones from the others.

    Both lists are in the order of their names. Raises UserError when the folder has no captions.jsonl.
    """
    captions, rejections = read_captions(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = pool.map(lambda item: _attempt(_check, folder, *item, min_frames), sorted(captions.items()))
        results = list(_tracked(checks, len(captions)))
    named = set(captions) | {rejection.file for rejection in rejections}
    results += [Rejection(name, f"no caption: {CAPTIONS} has no line for it") for name in _videos(folder) - named]
    rejections += [result for result in results if isinstance(result, Rejection)]
    clips = [result for result in results if isinstance(result, Clip)]
    return clips, sorted(rejections, key=lambda rejection: rejection.file)


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
        entry = _attempt(_entry, folder, f"{CAPTIONS}:{number}", line, captions) if line.strip() else None
        if isinstance(entry, Rejection):
            rejections.append(entry)
    return captions, rejections


def _attempt(step: Callable[..., Any], folder: Path, name: str, *arguments: Any) -> Any:
    try:
        return step(folder, name, *arguments)
    except _Rejected as rejected:
        return Rejection(name, str(rejected))


def _entry(folder: Path, place: str, line: bytes, captions: dict[str, str]) -> None:
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
    inside = _inside(folder, name)
    if inside in captions:
        raise _Rejected(f"duplicate: {name!r} has a caption already")
    captions[inside] = caption.strip()


def _inside(folder: Path, name: str) -> str:
    """The name in its plain form, when it stays in the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _Rejected(f"{name!r} leads out of the folder")
    return str(path)


def _check(folder: Path, name: str, caption: str, min_frames: int) -> Clip:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise _Rejected("it links to a file outside the folder")
        if not path.is_file():
            raise _Rejected("there is no such file")
        if path.suffix.lower() not in EXTENSIONS:
            raise _Rejected(f"it is not one of {', '.join(EXTENSIONS)}")
        if not path.stat().st_size:
            raise _Rejected("the file is empty")
        info = probe(path)
    except (UnreadableVideo, OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        raise _Rejected(str(error)) from error
    if info.frames < min_frames:
        raise _Rejected(f"too short: {info.frames} frames of the {min_frames} that min_frames asks for")
    return Clip(name, path, caption, info)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _videos(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    return {path.relative_to(folder).as_posix() for path in paths}


def _tracked(results: Iterable[Any], total: int) -> Iterable[Any]:
    return track(results, "checking videos", total, console=Console(stderr=True))
