"""The table of a data set's records: all that is known of them but their pictures, in one small file."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.files import replacing

TABLE = "records.parquet"


@dataclasses.dataclass(frozen=True)
class Row:
    """A record: its name, its caption and where that is written, the digest of its file, and what its video holds.

    `scenes` are the frames that begin a scene, the first 0.
    """

    id: str
    caption: str
    origin: str
    sha256: str
    frames: int
    height: int
    width: int
    fps: float
    scenes: tuple[int, ...] = (0,)

    @property
    def shape(self) -> ClipShape:
        """Frames of the longest scene, height and width."""
        ends = (*self.scenes[1:], self.frames)
        return ClipShape(max(e - s for s, e in zip(self.scenes, ends, strict=True)), self.height, self.width)


def write_table(folder: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    """Writes the rows of every split, in the order of its records."""
    rows = [{"split": split, **dataclasses.asdict(row)} for split, part in splits.items() for row in part]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    with replacing(folder / TABLE) as temporary:
        temporary.write_bytes(file.getvalue())


def read_table(folder: Path) -> dict[str, list[Row]]:
    """The rows of every split that has some."""
    splits: dict[str, list[Row]] = {}
    for values in pq.read_table(io.BytesIO((folder / TABLE).read_bytes())).to_pylist():
        split = values.pop("split")
        splits.setdefault(split, []).append(Row(**values | {"scenes": tuple(values["scenes"])}))
    return splits
