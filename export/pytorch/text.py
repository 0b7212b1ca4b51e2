"""PyTorch mirrors of the text encoders, with their weights."""

from export.pytorch.bert import Bert
from export.pytorch.clip import ClipText
from export.pytorch.load import load_params
from export.pytorch.t5 import T5Text
from mobile_video_jax.text import clip, minilm, t5
from mobile_video_jax.text.encoder_name import MINILM, PIPELINE_TEXTS, EncoderName
from mobile_video_jax.weights import huggingface

TextMirror = Bert | ClipText | T5Text


def load(name: EncoderName, *, in_fp16: bool = True) -> TextMirror:
    """Loads the mirror of a text encoder; only one that is to run in fp16 clamps what fp16 does not hold.

    Raises UserError where its files are missing or do not fit together.
    """
    if name.kind == MINILM:
        bert = Bert(minilm.BertConfig())
        load_params(bert, minilm.read_params(minilm.find_files() / huggingface.WEIGHTS, bert.config))
        return bert
    if name.kind == "clip":
        text = ClipText(clip.read_config(name.folder))
        load_params(text, clip.read_params(name.folder, text.config))
        return text
    folder = name.folder / "text_encoder" if name.kind in PIPELINE_TEXTS else name.folder
    encoder = T5Text(t5.read_config(folder)[1], in_fp16=in_fp16)
    load_params(encoder, t5.read_params(folder, encoder.config))
    return encoder
