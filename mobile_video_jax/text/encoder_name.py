"""Names of text encoders in flags and configs."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import local_path

MINILM = "minilm"


class PipelineText(NamedTuple):
    """Use of a T5 by a pipeline of diffusers, which has it in its folders text_encoder and tokenizer.

    "No caption" is its state of the empty text, not zero.
    """

    model_type: str  # of its config.json
    tokens: int  # longest caption
    attends_padding: bool  # captions are padded to `tokens`, and the padding is not masked


# The kinds of encoders in a pipeline's folder, the prefixes of their names.
PIPELINE_TEXTS = {
    "ltx": PipelineText("t5", 128, attends_padding=True),  # LTXPipeline, of LTX-Video 0.9 and 0.9.1
    "ltx_masked": PipelineText("t5", 256, attends_padding=False),  # LTXConditionPipeline, of LTX-Video from 0.9.5 on
    "wan": PipelineText(
        "umt5", 512, attends_padding=False
    ),  # WanPipeline, whose transformer sees zero states behind a caption
}
KINDS = ("clip", "t5", *PIPELINE_TEXTS)


def in_pipeline(name: str) -> bool:
    """True for the stored name of a pipeline's encoder, such as ltx-t5-0a1b2c3d."""
    return name.partition("-")[0] in PIPELINE_TEXTS


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
