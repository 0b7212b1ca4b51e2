"""Files of a folder and of the uncompressed tars in it, by one kind of name: shard-000.tar/clip.mp4 is in a tar."""

import dataclasses
import functools
import tarfile
from pathlib import Path, PurePosixPath

from mobile_video_jax.core.errors import UserError

TAR = ".tar"


@dataclasses.dataclass(frozen=True)
class Member:
    """A file inside a tar: `size` bytes from `offset` on."""

    archive: Path
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The file's bytes."""
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@functools.lru_cache(256)
def members(archive: Path) -> dict[str, Member]:
    """The files of a tar, read from its headers alone; nothing is unpacked. Raises UserError where it is none."""
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return {entry.name: Member(archive, entry.offset_data, entry.size) for entry in tar if entry.isfile()}
    except tarfile.TarError as error:
        raise UserError(f"{archive} is no plain tar ({error}): WebDataset's are not compressed") from error


def locate(folder: Path, name: str) -> Path | Member:
    """A file of the folder by its name. Raises FileNotFoundError for one that its tar does not hold."""
    parts = PurePosixPath(name).parts
    for i, part in enumerate(parts[:-1], start=1):
        archive = folder.joinpath(*parts[:i])
        if part.endswith(TAR) and archive.is_file():
            inside = "/".join(parts[i:])
            if inside not in members(archive):
                raise FileNotFoundError("there is no such file")
            return members(archive)[inside]
    return folder / name


def read(folder: Path, name: str) -> bytes:
    """The bytes of a file of the folder."""
    return locate(folder, name).read_bytes()
