"""Text encoders in PyTorch: the mirror of each that can be exported, with its weights."""

from pathlib import Path

from export.pytorch.bert import Bert
from export.pytorch.clip import ClipText
from export.pytorch.load import load_params
from export.pytorch.t5 import T5Text
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import clip, minilm, t5
from mobile_video_jax.weights import huggingface as weights


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
