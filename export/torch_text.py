"""Text encoders in PyTorch: the mirror of each that can be exported, with its weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from export.convert import load_params
from export.torch_bert import Bert
from export.torch_clip import ClipText
from export.torch_t5 import T5Text
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import clip, minilm, t5, weights


def load(name: str) -> Bert | ClipText | T5Text:
    """The mirror of "minilm", "clip:FOLDER", "t5:FOLDER" or "ltx:FOLDER", as text.encoder.load_text_encoder takes them.

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
    if kind in ("t5", "ltx") and folder:
        weights_folder = Path(folder) / "text_encoder" if kind == "ltx" else Path(folder)
        encoder = T5Text(t5.read_config(weights_folder)[1])
        load_params(encoder, t5.read_params(weights_folder, encoder.config))
        return encoder
    known = "minilm, clip:FOLDER or t5:FOLDER, or with ltx:FOLDER of a pipeline"
    raise UserError(f"text encoder {name} cannot be exported: use a run with {known}")


class PhoneText(nn.Module):
    """An encoder as the transformer's package takes its states: [1, width, 1, s], zero where there is no token.

    Takes ids [1, s] and the mask [1, 1, 1, s] of ones and zeros. With `seen`, nothing is masked inside, and so many
    zeros follow the ids there: LTX-Video's T5 attends to all padding up to its own length.
    """

    inputs, outputs = ("ids", "text_mask"), ("text",)

    def __init__(self, encoder: nn.Module, seen: int | None = None):
        super().__init__()
        self.encoder, self.seen = encoder, seen

    def forward(self, ids: Tensor, text_mask: Tensor) -> Tensor:
        if self.seen is None:
            states = self.encoder(ids, text_mask[:, 0, 0])
        else:
            followed = torch.cat([ids, ids.new_zeros(1, self.seen)], dim=1) if self.seen else ids
            states = self.encoder(followed)[:, : -self.seen or None]
        return states.transpose(1, 2)[:, :, None] * text_mask
