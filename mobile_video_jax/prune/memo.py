"""A file of the losses of models, such as masked ones, so that a stopped pass resumes and no model is scored twice."""

import hashlib
import json
from collections import UserDict
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.dit.masks import Masks


class LossFile(UserDict[str, Any]):
    """A mapping from a model's key to its loss, or losses, that appends each new value to a file of JSON lines.

    `fingerprint` identifies the model, clips and settings. Of several processes all have the values, and one writes.
    Raises UserError for a file with losses of another fingerprint.
    """

    def __init__(self, path: Path, fingerprint: str, *, write: bool = True):
        super().__init__()
        header = json.dumps({"of": fingerprint})
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # without a last line that was not finished
        if lines[1:] and lines[0] != header:
            raise UserError(f"{path} holds losses of another model, calibration set or setting: use another --out")
        if write:
            with replacing(path) as temporary:
                temporary.write_text("\n".join([header, *lines[1:], ""]))
        self.data = dict(json.loads(line) for line in lines[1:])
        self._path, self._write = path, write

    def __setitem__(self, key: str, loss: float | list[float]) -> None:
        if self._write:
            with self._path.open("a") as file:
                file.write(json.dumps([key, loss]) + "\n")
        self.data[key] = loss


def keep_key(keep: Masks) -> str:
    """A key that identifies masks."""
    return hashlib.sha256(b"".join(mask.tobytes() for mask in keep)).hexdigest()[:24]
