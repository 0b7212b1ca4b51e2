"""Names of text encoders in flags and configs."""

import dataclasses
from pathlib import Path

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import local_path

MINILM = "minilm"
KINDS = ("clip", "t5", "ltx")


@dataclasses.dataclass(frozen=True)
class EncoderName:
    """The installed encoder "minilm", or KIND:FOLDER with a kind of KINDS and the folder of its files."""

    kind: str
    folder: Path = Path()

    @classmethod
    def parse(cls, text: str) -> "EncoderName":
        """Parses a name. Raises UserError for an unknown kind, and for one without a local folder."""
        kind, _, folder = text.partition(":")
        if text == MINILM:
            return cls(MINILM)
        if kind not in KINDS or not folder:
            known = ", ".join([MINILM, *(f"{kind}:FOLDER" for kind in KINDS)])
            raise UserError(f"there is no text encoder '{text}': known are {known}")
        return cls(kind, local_path(folder))
