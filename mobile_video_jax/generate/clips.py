"""Generated clips with their prompts, and as files."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from mobile_video_jax.core.arrays import Clips, Frames
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.data.video.write import write_gif, write_mp4

FRAME_RATE = 8.0  # frames a second, of clips whose run knows no rate of its own
WRITERS = {".mp4": write_mp4, ".gif": write_gif}


@dataclasses.dataclass(frozen=True)
class GeneratedClips:
    """Clips as uint8 `frames` [b t h w 3], one for each of `prompts`, at `frame_rate` frames a second."""

    frames: Clips
    prompts: Sequence[str]
    frame_rate: float = FRAME_RATE

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Frames]:
        return iter(self.frames)

    def save(self, path: str | Path, *, scale: int = 1) -> list[Path]:
        """Writes an .mp4 or .gif a clip, each pixel enlarged to scale x scale, and returns the files.

        One clip becomes `path` itself; several are numbered: clip.mp4 becomes clip-0.mp4, clip-1.mp4, … Raises
        UserError for another suffix.
        """
        path = storage_path(path) if isinstance(path, str) else path
        if path.suffix not in WRITERS:
            raise UserError(f"{path}: name a file that ends with {' or '.join(WRITERS)}")
        numbered = [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(len(self))]
        files = [path] if len(self) == 1 else numbered
        for file, frames in zip(files, self.frames, strict=True):
            WRITERS[path.suffix](file, frames, self.frame_rate, scale)
        return files
