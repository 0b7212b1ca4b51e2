"""The default text encoder in PyTorch, with the names and shapes of mobile_video_jax/text/minilm.py."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.tensors import FloatMask, TextStates, TokenIds
from mobile_video_jax.nn.attention.layer import MASKED
from mobile_video_jax.text.minilm import BertConfig


class Bert(nn.Module):
    """text.minilm.Bert: maps token ids and their mask to the last layer's states."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.token_types = nn.Embedding(config.token_types, config.width)
        self.norm = layer_norm(config)
        for i in range(config.layers):
            self.add_module(f"layer_{i}", BertLayer(config))

    def forward(self, ids: TokenIds, mask: FloatMask) -> TextStates:
        x = self.words(ids) + (self.positions.weight[: ids.shape[1]] + self.token_types.weight[0])
        x = self.norm(x)
        bias = (1 - mask)[:, None, None, :] * MASKED
        for i in range(self.config.layers):
            x = self.get_submodule(f"layer_{i}")(x, bias)
        states: Tensor = x
        return states


class BertLayer(nn.Module):
    """text.minilm.BertLayer: x = norm(x + attention(x)), then x = norm(x + ffn(x))."""

    def __init__(self, config: BertConfig):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.attention_out = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.ffn_norm = layer_norm(config), layer_norm(config)
        self.ffn_in, self.ffn_out = nn.Linear(width, config.ffn_width), nn.Linear(config.ffn_width, width)

    def forward(self, x: TextStates, bias: Float[Tensor, "b 1 1 s"]) -> TextStates:
        query, key, value = (self._heads(part(x)) for part in (self.query, self.key, self.value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = self.attention_norm(x + self.attention_out(attended.transpose(1, 2).flatten(2)))
        states: Tensor = self.ffn_norm(x + self.ffn_out(functional.gelu(self.ffn_in(x))))
        return states

    def _heads(self, x: TextStates) -> Float[Tensor, "b heads s width"]:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)


def layer_norm(config: BertConfig) -> nn.LayerNorm:
    """A layer norm with BERT's epsilon."""
    return nn.LayerNorm(config.width, eps=1e-12)
