"""T5 v1.1's and UMT5's encoders in PyTorch, with the names and shapes of mobile_video_jax/text/t5.py."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch.safe_norms import rms_normalize
from export.tensors import FloatMask, TextStates, TokenIds
from mobile_video_jax.nn.attention.layer import MASKED
from mobile_video_jax.text.t5 import T5Config, relative_buckets

LARGEST = 64504.0  # 1,000 below fp16's largest, as in transformers


class T5Text(nn.Module):
    """text.t5.T5Encoder: maps token ids and their mask to the last layer's normalised states.

    Without a mask every id is a token. `in_fp16` keeps its values within what fp16 holds.
    """

    buckets: Tensor

    def __init__(self, config: T5Config, *, in_fp16: bool = True):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        # The bucket of every distance up to the largest; beyond it, the bucket is the last one.
        distances = np.arange(-config.max_distance, config.max_distance + 1)
        buckets = relative_buckets(distances, config.buckets, config.max_distance)
        self.register_buffer("buckets", torch.tensor(buckets), persistent=False)
        for i in range(config.layers):
            if i == 0 or config.bias_per_layer:
                self.add_module(f"relative_bias_{i}", nn.Embedding(config.buckets, config.heads))
            self.add_module(f"layer_{i}", T5Layer(config, in_fp16=in_fp16))
        self.norm = T5Norm(config)

    def forward(self, ids: TokenIds, mask: FloatMask | None = None) -> TextStates:
        config, positions = self.config, torch.arange(ids.shape[1])
        distances = (positions - positions[:, None]).clamp(-config.max_distance, config.max_distance)
        buckets = self.buckets[distances + config.max_distance]
        padding = 0 if mask is None else (1 - mask)[:, None, None, :] * MASKED
        x = self.words(ids)
        for i in range(config.layers):
            if i == 0 or config.bias_per_layer:
                table: Tensor = self.get_submodule(f"relative_bias_{i}").weight  # type: ignore[assignment]
                bias = table[buckets].permute(2, 0, 1)[None] + padding
            x = self.get_submodule(f"layer_{i}")(x, bias)
        states: Tensor = self.norm(x)
        return states

    def folded(self, tokens: int) -> int:
        """The numbers that a package of so many tokens holds beside the weights: the biases of all pairs."""
        tables = self.config.layers if self.config.bias_per_layer else 1
        return tables * self.config.heads * tokens**2


class T5Layer(nn.Module):
    """text.t5.T5Layer: x += attention(norm(x)), then x += gated ffn(norm(x)); queries are not scaled.

    T5 was trained in bfloat16: in fp16 its hidden values and residual stream are clamped, as transformers does.
    """

    def __init__(self, config: T5Config, *, in_fp16: bool = True):
        super().__init__()
        width, inner = config.width, config.heads * config.head_width
        self.held: Callable[[Tensor], Tensor] = clamped if in_fp16 else _unchanged
        self.heads = config.heads
        self.attention_norm, self.ffn_norm = T5Norm(config), T5Norm(config)
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.attention_out = nn.Linear(inner, width, bias=False)
        self.ffn_gate, self.ffn_in = (nn.Linear(width, config.ffn_width, bias=False) for _ in range(2))
        self.ffn_out = nn.Linear(config.ffn_width, width, bias=False)

    def forward(self, x: TextStates, bias: Float[Tensor, "#b heads s s"]) -> TextStates:
        normed = self.attention_norm(x)
        query, key, value = (self._heads(part(normed)) for part in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(2, 3) + bias, dim=-1)
        x = self.held(x + self.attention_out((weights @ value).transpose(1, 2).flatten(2)))
        normed = self.ffn_norm(x)
        hidden = self.held(functional.gelu(self.ffn_gate(normed), approximate="tanh") * self.ffn_in(normed))
        return self.held(x + self.ffn_out(hidden))

    def _heads(self, x: TextStates) -> Float[Tensor, "b heads s width"]:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)


def clamped(x: Tensor) -> Tensor:
    """Values within what fp16 holds; in float32 a trained T5's are, but for outliers."""
    return x.clamp(-LARGEST, LARGEST)


def _unchanged(x: Tensor) -> Tensor:
    return x


class T5Norm(nn.Module):
    """RMS normalisation whose squares do not overflow fp16: T5's residual stream reaches the thousands."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.epsilon = config.epsilon
        self.weight = nn.Parameter(torch.ones(config.width))

    def forward(self, x: TextStates) -> TextStates:
        return rms_normalize(x, -1, self.epsilon) * self.weight
