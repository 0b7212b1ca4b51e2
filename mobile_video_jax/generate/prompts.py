"""Requests: prompts with their seeds and images, from the command line or from a list."""

import codecs
import collections
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.decode import decode

SEEDS = 1 << 32  # a larger one gives the noise of its last 32 bits
KEYS = {"prompt": str, "seed": int, "image": str}


@dataclasses.dataclass(frozen=True)
class Request:
    """A clip to draw: what it shows, the seed of its noise and, if any, the image file that it starts from.

    Raises UserError for a prompt without text and a seed out of range.
    """

    prompt: str
    seed: int
    image: Path | None = None

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UserError(f"the prompt {self.prompt!r} has no words: say what the clip shall show")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed {self.seed} is out of range: use 0 to {SEEDS - 1}")


def make_requests(prompts: Sequence[str], seed: int, images: Sequence[Path]) -> list[Request]:
    """A request a prompt, the i-th with seed + i and the i-th image, or the only one.

    Raises UserError for another number of images.
    """
    if len(images) not in (0, 1, len(prompts)):
        raise UserError(f"{len(images)} images for {len(prompts)} prompts: give one for all, or one for each")
    pictures = list(images) if len(images) == len(prompts) else [images[0] if images else None] * len(prompts)
    return [Request(text, seed + i, image) for i, (text, image) in enumerate(zip(prompts, pictures, strict=True))]


def read_requests(path: Path, seed: int, images: Sequence[Path]) -> list[Request]:
    """The requests of a list: a .txt with a prompt a line, or a .jsonl with {"prompt", "seed", "image"} a line.

    Only "prompt" must be there; the i-th request otherwise has seed + i and the only one of `images`. An image's path
    starts at the list's folder and stays in it. Blank lines are skipped. Raises UserError, with the line's number.
    """
    if path.suffix not in (".txt", ".jsonl"):
        raise UserError(f"{path}: a list of prompts is a .txt or a .jsonl file")
    if len(images) > 1:
        raise UserError(f'give one image for all prompts of {path}, or name them there: {{"prompt": …, "image": …}}')
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise UserError(f"the list of prompts {path} does not open: {error.strerror}") from None
    requests: list[Request] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            default = Request("the default", seed + len(requests), images[0] if images else None)
            try:
                requests.append(_READERS[path.suffix](line, default, path.parent))
            except (UserError, UnicodeError) as error:
                raise UserError(f"{path}:{number}: {error}") from None
    if not requests:
        raise UserError(f"{path} holds no prompts: write one a line")
    return requests


def file_names(requests: Sequence[Request]) -> list[str]:
    """SEED-PROMPT for each request, in letters and digits; later ones of the same name are numbered."""
    names: dict[str, None] = {}
    copies = collections.Counter[str]()
    for request in requests:
        slug = re.sub("[^a-z0-9]+", "-", request.prompt.lower()).strip("-")[:60]
        name = plain = f"{request.seed:05}-{slug}"
        while name in names:
            copies[plain] += 1
            name = f"{plain}-{copies[plain] + 1}"
        names[name] = None
    return list(names)


def picture(path: Path, clip: ClipShape) -> Frames:
    """The image in a file, scaled to cover a frame of the clip and cropped at its centre: uint8 [1 h w 3].

    Raises UserError for a file that holds none.
    """
    try:
        return decode(path.read_bytes(), dataclasses.replace(clip, frames=1))
    except OSError as error:
        raise UserError(f"image {path} does not open: {error.strerror}") from error
    except UnreadableVideo as error:
        raise UserError(f"image {path}: {error}") from error


def _read_text(line: bytes, default: Request, folder: Path) -> Request:
    return dataclasses.replace(default, prompt=line.decode().strip())


def _read_json(line: bytes, default: Request, folder: Path) -> Request:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError("it is not JSON") from None
    if not isinstance(entry, dict) or "prompt" not in entry:
        raise UserError('it lacks "prompt"')
    for key, value in entry.items():
        if key not in KEYS:
            raise UserError(f'unknown key "{key}": a line has {", ".join(KEYS)}')
        if type(value) is not KEYS[key]:
            raise UserError(f'"{key}" must be {"a whole number" if KEYS[key] is int else "text"}, not {value!r}')
    entry["prompt"].encode()  # half a surrogate pair is no text
    if "image" in entry:
        entry["image"] = _inside(folder, entry["image"])
    return dataclasses.replace(default, **entry)


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    try:
        exists = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long a name, a loop of links, a null character
        exists = False
    if not exists:
        raise UserError(f"there is no image {name!r} in {folder}")
    return path


_READERS = {".txt": _read_text, ".jsonl": _read_json}
