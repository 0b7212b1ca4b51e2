"""Text encoders in PyTorch: the mirror of each that can be exported, with its weights."""

from pathlib import Path

from torch import Tensor, nn

from export.convert import load_params
from export.torch_bert import Bert
from export.torch_clip import ClipText
from export.torch_t5 import T5Text
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import clip, minilm, t5, weights


def load(name: str) -> Bert | ClipText | T5Text:
    """The mirror of "minilm", "clip:FOLDER" or "t5:FOLDER", as text.encoder.load_text_encoder takes them.

    Raises UserError for an encoder that has no mirror.
    """
    kind, _, folder = name.partition(":")
    if name == "minilm":
        bert = Bert(minilm.BertConfig())
        load_params(bert, minilm.read_params(minilm.find_files() / weights.WEIGHTS, bert.config))
        return bert
    if kind == "clip" and folder:
        text = ClipText(clip.read_config(Path(folder)))
        load_params(text, clip.read_params(Path(folder), text.config))
        return text
    if kind == "t5" and folder:
        encoder = T5Text(t5.read_config(Path(folder))[1])
        load_params(encoder, t5.read_params(Path(folder), encoder.config))
        return encoder
    raise UserError(f"text encoder {name} cannot be exported: use a run with minilm, clip:FOLDER or t5:FOLDER")


class PhoneText(nn.Module):
    """An encoder as the transformer's package takes its states: [1, width, 1, s], zero where there is no token.

    Takes ids [1, s] and the mask [1, 1, 1, s] of ones and zeros.
    """

    inputs, outputs = ("ids", "text_mask"), ("text",)

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, text_mask: Tensor) -> Tensor:
        states = self.encoder(ids, text_mask[:, 0, 0])
        return states.transpose(1, 2)[:, :, None] * text_mask
