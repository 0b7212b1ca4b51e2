"""The tokenizer's files for an app, and prompts with the ids that it is to give."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mobile_video_jax.core.files import write_json
from mobile_video_jax.text.encoder import TextEncoder

CONFIG, PROMPTS = "tokenizer_config.json", "golden/prompts.json"
# The class by which swift-transformers chooses its code, by the model in tokenizer.json, and its special tokens.
CLASSES: dict[str, tuple[str, dict[str, str]]] = {
    "WordPiece": ("BertTokenizer", {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}),
    "Unigram": ("T5Tokenizer", {"unk": "<unk>", "eos": "</s>", "pad": "<pad>"}),
    "BPE": ("CLIPTokenizer", {"unk": "<|endoftext|>", "bos": "<|startoftext|>", "eos": "<|endoftext|>"}),
}
UNREADABLE = {
    "CLIPTokenizer": "swift-transformers has no CLIP tokenizer: read tokenizer.json with another library",
    "T5Tokenizer": "swift-transformers only approximates the normalizer of T5: compare with golden/prompts.json",
}
WORDS = "a red circle moving left"


def write_tokenizer(encoder: TextEncoder, tokens: int, folder: Path) -> list[str]:
    """Writes the files, and returns one line for each thing that swift-transformers cannot do with them."""
    tokenizer = encoder.limited_to(tokens).tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    name, special = CLASSES[json.loads(tokenizer.to_str())["model"]["type"]]
    known = {f"{key}_token": token for key, token in special.items() if tokenizer.token_to_id(token) is not None}
    write_json(folder / CONFIG, {"tokenizer_class": name, "model_max_length": tokens, **known})
    (folder / PROMPTS).parent.mkdir(exist_ok=True)
    write_json(folder / PROMPTS, golden_prompts(tokenizer, tokens))
    return [UNREADABLE[name]] if name in UNREADABLE else []


def golden_prompts(tokenizer: Tokenizer, tokens: int) -> list[dict[str, Any]]:
    """Prompts around and far above the package's length, with their ids, not padded."""
    special = len(tokenizer.encode("").ids)
    texts = ["", WORDS, *(" ".join(["red"] * (count - special)) for count in lengths(tokens))]
    return [{"prompt": text, "ids": tokenizer.encode(text).ids} for text in texts]


def lengths(tokens: int) -> tuple[int, ...]:
    """Tokens of the golden prompts of a package of `tokens` tokens."""
    return tokens - 1, tokens, tokens + 1, 3 * tokens
