"""T5 v1.1's and UMT5's encoders in PyTorch: the modules of mobile_video_jax/text/t5.py with their names and shapes."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch.safe_norms import rms_normalize
from mobile_video_jax.nn.attention.layer import MASKED
from mobile_video_jax.text.t5 import T5Config, relative_buckets


class T5Text(nn.Module):
    """text.t5.T5Encoder: ids [b, s] and their mask [b, s] of ones, and zeros for padding, to states [b, s, width].

    Without a mask every id is a token.
    """

    buckets: Tensor

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        # Of all distances: beyond the largest, the bucket is the last one.
        distances = np.arange(-config.max_distance, config.max_distance + 1)
        buckets = relative_buckets(distances, config.buckets, config.max_distance)
        self.register_buffer("buckets", torch.tensor(buckets), persistent=False)
        for i in range(config.layers):
            if i == 0 or config.bias_per_layer:
                self.add_module(f"relative_bias_{i}", nn.Embedding(config.buckets, config.heads))
            self.add_module(f"layer_{i}", T5Layer(config))
        self.norm = T5Norm(config)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        config, places = self.config, torch.arange(ids.shape[1])
        distances = (places - places[:, None]).clamp(-config.max_distance, config.max_distance)
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


class T5Layer(nn.Module):
    """text.t5.T5Layer: x += attention(norm(x)), then x += gated ffn(norm(x)); queries are not scaled."""

    def __init__(self, config: T5Config):
        super().__init__()
        width, inner = config.width, config.heads * config.head_width
        self.heads = config.heads
        self.attention_norm, self.ffn_norm = T5Norm(config), T5Norm(config)
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.attention_out = nn.Linear(inner, width, bias=False)
        self.ffn_gate, self.ffn_in = (nn.Linear(width, config.ffn_width, bias=False) for _ in range(2))
        self.ffn_out = nn.Linear(config.ffn_width, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        query, key, value = (self._heads(part(normed)) for part in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(2, 3) + bias, dim=-1)
        x = x + self.attention_out((weights @ value).transpose(1, 2).flatten(2))
        normed = self.ffn_norm(x)
        return x + self.ffn_out(functional.gelu(self.ffn_gate(normed), approximate="tanh") * self.ffn_in(normed))

    def _heads(self, x: Tensor) -> Tensor:
        """[b, s, h d] to [b, h, s, d]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class T5Norm(nn.Module):
    """RMS normalisation whose squares do not overflow fp16: T5's residual grows into the thousands."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.epsilon = config.epsilon
        self.weight = nn.Parameter(torch.ones(config.width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_normalize(x, -1, self.epsilon) * self.weight
