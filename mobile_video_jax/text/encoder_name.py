"""The name of a text encoder, as flags and configs take it."""

import dataclasses
from pathlib import Path

from mobile_video_jax.core.errors import UserError

MINILM = "minilm"
KINDS = ("clip", "t5", "ltx")


@dataclasses.dataclass(frozen=True)
class EncoderName:
    """ "minilm", whose files are found by themselves, or a kind of KINDS with the folder of its files, KIND:FOLDER."""

    kind: str
    folder: Path = Path()

    @classmethod
    def parse(cls, text: str) -> "EncoderName":
        """Raises UserError for an unknown kind, and for one without its folder."""
        kind, _, folder = text.partition(":")
        if text == MINILM:
            return cls(MINILM)
        if kind not in KINDS or not folder:
            known = ", ".join([MINILM, *(f"{kind}:FOLDER" for kind in KINDS)])
            raise UserError(f"there is no text encoder '{text}': known are {known}")
        return cls(kind, Path(folder))
