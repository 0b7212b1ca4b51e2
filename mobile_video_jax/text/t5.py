"""The encoders of T5 v1.1 (arXiv:2002.05202) and UMT5 (arXiv:2304.09151), and their published weights."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import TextMask, TextStates, TokenIds
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import PositiveShare, Size
from mobile_video_jax.weights import huggingface

# Module of the flax tree -> module of the published encoder; {i} is the layer.
MODULES = {
    "words": "shared",
    "relative_bias_{i}": "encoder.block.{i}.layer.0.SelfAttention.relative_attention_bias",
    "layer_{i}/attention_norm": "encoder.block.{i}.layer.0.layer_norm",
    "layer_{i}/query": "encoder.block.{i}.layer.0.SelfAttention.q",
    "layer_{i}/key": "encoder.block.{i}.layer.0.SelfAttention.k",
    "layer_{i}/value": "encoder.block.{i}.layer.0.SelfAttention.v",
    "layer_{i}/attention_out": "encoder.block.{i}.layer.0.SelfAttention.o",
    "layer_{i}/ffn_norm": "encoder.block.{i}.layer.1.layer_norm",
    "layer_{i}/ffn_gate": "encoder.block.{i}.layer.1.DenseReluDense.wi_0",
    "layer_{i}/ffn_in": "encoder.block.{i}.layer.1.DenseReluDense.wi_1",
    "layer_{i}/ffn_out": "encoder.block.{i}.layer.1.DenseReluDense.wo",
    "norm": "encoder.final_layer_norm",
}
# The embedding table is published as `shared`, as the encoder's own, or as both, which are then equal.
TIED = "encoder.embed_tokens"
IGNORED = ("decoder.", "lm_head.", f"{TIED}.")
FIELDS = {
    "vocab_size": "vocabulary",
    "d_model": "width",
    "num_layers": "layers",
    "num_heads": "heads",
    "d_kv": "head_width",
    "d_ff": "ffn_width",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "layer_norm_epsilon": "epsilon",
}


@dataclasses.dataclass(frozen=True)
class T5Config(Config):
    """Sizes of a T5 encoder; the defaults are those of T5 v1.1 XXL."""

    vocabulary: Size = 32128  # tokens
    width: Size = 4096  # channels of a token
    layers: Size = 24  # transformer layers
    heads: Size = 64  # attention heads of a layer
    head_width: Size = 64  # channels of a head
    ffn_width: Size = 10240  # hidden channels of the FFN
    buckets: Size = 32  # groups of distances between tokens that share a bias
    max_distance: Size = 128  # distance in tokens from which on all share a bias
    epsilon: PositiveShare = 1e-6  # added to the mean square of RMSNorm
    bias_per_layer: bool = False  # a table of position biases for each layer (UMT5), not one for all


def relative_buckets(distances: Int[np.ndarray, "*n"], buckets: int, max_distance: int) -> Int[np.ndarray, "*n"]:
    """Bucket of each distance, the key's position minus the query's (arXiv:1910.10683, section 2.1).

    Half of the buckets are for keys after the query. In each half, half of the buckets hold one distance each; the
    others divide the distances up to `max_distance` evenly on a log scale, and the last one holds all beyond.
    """
    half = buckets // 2
    exact = half // 2
    steps = np.abs(distances)
    # In float32 like the reference, as rounding decides at the edges; in NumPy, as accelerators round differently.
    octaves = np.log(np.maximum(steps, 1).astype(np.float32) / exact) / math.log(max_distance / exact)
    spread = np.minimum(exact + (octaves * (half - exact)).astype(int), half - 1)
    buckets_by_sign: np.ndarray = np.where(steps < exact, steps, spread) + half * (distances > 0)
    return buckets_by_sign


def _rms_norm(config: T5Config, name: str) -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=config.epsilon, name=name)


class T5Layer(nn.Module):
    """One pre-norm layer without biases: x += attention(norm(x)), then x += gated ffn(norm(x)).

    Queries are not scaled by 1 / sqrt(head_width), which is part of T5's initialisation. Attention skips padding.
    """

    config: T5Config

    @nn.compact
    def __call__(self, x: TextStates, mask: TextMask, bias: Float[Array, "1 h s s"]) -> TextStates:
        config, dense = self.config, functools.partial(nn.Dense, use_bias=False)
        normed = _rms_norm(config, "attention_norm")(x)
        query, key, value = (
            dense(config.heads * config.head_width, name=name)(normed).reshape(*x.shape[:2], config.heads, -1)
            for name in ("query", "key", "value")
        )
        attended = jax.nn.dot_product_attention(query, key, value, bias, mask[:, None, None, :], scale=1.0)
        x += dense(config.width, name="attention_out")(attended.reshape(*x.shape[:2], -1))
        normed = _rms_norm(config, "ffn_norm")(x)
        gate = nn.gelu(dense(config.ffn_width, name="ffn_gate")(normed), approximate=True)
        return x + dense(config.width, name="ffn_out")(gate * dense(config.ffn_width, name="ffn_in")(normed))


class T5Encoder(nn.Module):
    """Maps token ids [b s] and mask [b s] (False = padding) to the last layer's normalised states [b s width]."""

    config: T5Config

    @nn.compact
    def __call__(self, ids: TokenIds, mask: TextMask) -> TextStates:
        config, positions = self.config, np.arange(ids.shape[1])
        buckets = relative_buckets(positions[None] - positions[:, None], config.buckets, config.max_distance)
        # Float32 throughout, also where parameters are bfloat16: layers convert what they use.
        embed = functools.partial(nn.Embed, dtype=jnp.float32)
        x = embed(config.vocabulary, config.width, name="words")(ids)
        for i in range(config.layers):
            if i == 0 or config.bias_per_layer:
                table = embed(config.buckets, config.heads, name=f"relative_bias_{i}")
                bias = jnp.moveaxis(table(jnp.asarray(buckets)), -1, 0)[None]
            x = T5Layer(config, name=f"layer_{i}")(x, mask, bias)
        states: TextStates = _rms_norm(config, "norm")(x)
        return states


def read_config(folder: Path) -> tuple[str, T5Config]:
    """Reads the model type (t5 or umt5) and the sizes in config.json.

    Raises UserError where it is missing, of another model type or of a T5 v1.0, whose FFN has no gate.
    """
    settings = huggingface.read_config(folder, ("t5", "umt5"))
    ffn = settings.get("feed_forward_proj", "relu")
    if ffn != "gated-gelu":
        raise UserError(f"{folder}: feed_forward_proj is {ffn}, not gated-gelu: use a T5 v1.1, Flan-T5 or UMT5")
    sizes = {field: settings[key] for key, field in FIELDS.items() if key in settings}
    return settings["model_type"], T5Config(**sizes, bias_per_layer=settings["model_type"] == "umt5")


def read_params(path: Path, config: T5Config, *, keep_bfloat16: bool = False) -> dict[str, Any]:
    """Reads a T5 in Hugging Face's naming, a safetensors file or a folder, as parameters of `T5Encoder(config)`.

    They are float32, or what the file holds in bfloat16 stays so: XXL then takes 9.5 GB, not 19, for the same states.

    Raises UserError naming the tensor where one is missing, unused or of another shape than `config` requires.
    """
    tensors = huggingface.open_tensors(path)
    words = TIED if "shared.weight" not in tensors and f"{TIED}.weight" in tensors else "shared"
    modules = MODULES | {"words": words}
    return huggingface.read_params(path, T5Encoder(config), modules, IGNORED, keep_bfloat16=keep_bfloat16)
