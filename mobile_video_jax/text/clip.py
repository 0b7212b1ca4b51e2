"""CLIP's text transformer (arXiv:2103.00020) at the sizes of ViT-L/14, and its published weights as flax parameters."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mobile_video_jax.core.arrays import TextMask, TextStates, TokenIds
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import PositiveShare, Size
from mobile_video_jax.weights import huggingface

# Module of the flax tree -> module of the published text transformer; {i} is the layer.
MODULES = {
    "words": "embeddings.token_embedding",
    "positions": "embeddings.position_embedding",
    "layer_{i}/attention_norm": "encoder.layers.{i}.layer_norm1",
    "layer_{i}/query": "encoder.layers.{i}.self_attn.q_proj",
    "layer_{i}/key": "encoder.layers.{i}.self_attn.k_proj",
    "layer_{i}/value": "encoder.layers.{i}.self_attn.v_proj",
    "layer_{i}/attention_out": "encoder.layers.{i}.self_attn.out_proj",
    "layer_{i}/ffn_norm": "encoder.layers.{i}.layer_norm2",
    "layer_{i}/ffn_in": "encoder.layers.{i}.mlp.fc1",
    "layer_{i}/ffn_out": "encoder.layers.{i}.mlp.fc2",
    "norm": "final_layer_norm",
}
# The vision tower, the projections into the shared space, and the position ids, which are 0, 1, 2, ...
IGNORED = (
    "vision_model.",
    "visual_projection.",
    "text_projection.",
    "logit_scale",
    "text_model.embeddings.position_ids",
    "embeddings.position_ids",
)
FIELDS = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn_width",
    "max_position_embeddings": "positions",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon",
}
# A config.json omits values equal to ViT-B/32's; these differ from ViT-L/14's.
OMITTED = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}


def quick_gelu(x: TextStates) -> TextStates:
    """x sigmoid(1.702 x), the approximation of GELU in OpenAI's CLIP (arXiv:1606.08415)."""
    return x * nn.sigmoid(1.702 * x)


def gelu(x: TextStates) -> TextStates:
    """x Φ(x), the exact GELU of OpenCLIP's models (arXiv:1606.08415)."""
    return nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Callable[[TextStates], TextStates]] = {"quick_gelu": quick_gelu, "gelu": gelu}


@dataclasses.dataclass(frozen=True)
class ClipConfig(Config):
    """Sizes of CLIP's text transformer; the defaults are those of ViT-L/14."""

    vocabulary: Size = 49408  # tokens
    width: Size = 768  # channels of a token
    layers: Size = 12  # transformer layers
    heads: Size = 12  # attention heads of a layer
    ffn_width: Size = 3072  # hidden channels of the FFN
    positions: Size = 77  # longest text in tokens
    activation: str = "quick_gelu"  # of the FFN: quick_gelu or gelu
    epsilon: PositiveShare = 1e-5  # added to the variance of LayerNorm


def _layer_norm(config: ClipConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=config.epsilon, use_fast_variance=False, name=name)


class ClipLayer(nn.Module):
    """One pre-norm layer: x += attention(norm(x)), then x += ffn(norm(x)); attention is causal and skips padding."""

    config: ClipConfig

    @nn.compact
    def __call__(self, x: TextStates, mask: TextMask) -> TextStates:
        config = self.config
        normed = _layer_norm(config, "attention_norm")(x)
        query, key, value = (
            nn.Dense(config.width, name=name)(normed).reshape(*x.shape[:2], config.heads, -1)
            for name in ("query", "key", "value")
        )
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None, :], is_causal=True)
        x += nn.Dense(config.width, name="attention_out")(attended.reshape(x.shape))
        hidden = nn.Dense(config.ffn_width, name="ffn_in")(_layer_norm(config, "ffn_norm")(x))
        return x + nn.Dense(config.width, name="ffn_out")(ACTIVATIONS[config.activation](hidden))


class ClipText(nn.Module):
    """Maps token ids [b s] and mask [b s] (False = padding) to the last layer's normalised states [b s width]."""

    config: ClipConfig

    @nn.compact
    def __call__(self, ids: TokenIds, mask: TextMask) -> TextStates:
        config = self.config
        x = nn.Embed(config.vocabulary, config.width, name="words")(ids)
        x += nn.Embed(config.positions, config.width, name="positions")(jnp.arange(ids.shape[1]))
        for i in range(config.layers):
            x = ClipLayer(config, name=f"layer_{i}")(x, mask)
        states: TextStates = _layer_norm(config, "norm")(x)
        return states


def read_config(folder: Path) -> ClipConfig:
    """Reads the sizes in config.json, of a whole CLIP or of its text transformer alone.

    Raises UserError where it is missing, of another model type or names an unknown activation.
    """
    settings = huggingface.read_config(folder, ("clip", "clip_text_model"))
    settings = OMITTED | settings.get("text_config", settings)
    config = ClipConfig(**{field: settings[key] for key, field in FIELDS.items() if key in settings})
    if config.activation not in ACTIVATIONS:
        raise UserError(
            f"{folder}: hidden_act {config.activation} is none of {', '.join(ACTIVATIONS)}: use another CLIP"
        )
    return config


def read_params(path: Path, config: ClipConfig) -> dict[str, Any]:
    """Reads a CLIP in Hugging Face's naming, a safetensors file or a folder, as parameters of `ClipText(config)`.

    Raises UserError naming the tensor where one is missing, unused or of another shape than `config` requires.
    """
    # Files of the text transformer alone lack the prefix that it has in a whole CLIP.
    whole = any(name.startswith("text_model.") for name in huggingface.open_tensors(path))
    prefix = "text_model." if whole else ""
    modules = {module: prefix + name for module, name in MODULES.items()}
    return huggingface.read_params(path, ClipText(config), modules, IGNORED)
