"""Labels of clips: a file with a line {"id": …, "label": …} for each, 1 where a clip shows what its caption says."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing

NAME = "labels.jsonl"
EXAMPLE = '{"id": "train-7", "label": 1}'


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels from 0 to 1 by the ids of an encoded data set's clips."""

    path: Path
    by_id: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> "Labels":
        """Raises UserError, with the line's number, for a file that is missing or no such list."""
        if not path.is_file():
            raise UserError(
                f"{path} does not exist: write a line {EXAMPLE} for each clip, or make it with launch.label"
            )
        by_id: dict[str, float] = {}
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if line.strip():
                name, label = _entry(f"{path}:{number}", line)
                by_id[name] = label
        if not by_id:
            raise UserError(f"{path} holds no labels: write a line {EXAMPLE} for each clip")
        return cls(path, by_id)

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The array `label` of a record. Raises UserError for a clip without one."""
        if record["id"] not in self.by_id:
            raise UserError(f"{self.path} has no label of the clip {record['id']}: it was made for other clips")
        return {"label": np.float32(self.by_id[record["id"]])}


def write_labels(path: Path, by_id: Mapping[str, float]) -> None:
    """Writes a file that `Labels.read` reads, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps({"id": name, "label": by_id[name]}) + "\n" for name in by_id))


def _entry(place: str, line: str) -> tuple[str, float]:
    try:
        entry = json.loads(line)
    except ValueError:
        raise UserError(f"{place}: it is not JSON") from None
    name, label = (entry.get(key) for key in ("id", "label")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(label, int | float) or not 0 <= label <= 1:
        raise UserError(f"{place}: a line is like {EXAMPLE}, with a label from 0 to 1")
    return name, float(label)
