"""CLIP's text transformer in PyTorch, with the names and shapes of mobile_video_jax/text/clip.py."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.tensors import FloatMask, TextStates, TokenIds
from mobile_video_jax.nn.attention.layer import MASKED
from mobile_video_jax.text.clip import ClipConfig


class ClipText(nn.Module):
    """text.clip.ClipText: maps token ids and their mask to the last layer's normalised states."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        for i in range(config.layers):
            self.add_module(f"layer_{i}", ClipLayer(config))
        self.norm = nn.LayerNorm(config.width, config.epsilon)

    def forward(self, ids: TokenIds, mask: FloatMask) -> TextStates:
        length = ids.shape[1]
        x = self.words(ids) + self.positions.weight[:length]
        # A minimum, not a sum: twice MASKED is near fp16's end.
        later = torch.triu(torch.full((length, length), MASKED), diagonal=1)
        bias = torch.minimum((1 - mask)[:, None, None, :] * MASKED, later)
        for i in range(self.config.layers):
            x = self.get_submodule(f"layer_{i}")(x, bias)
        states: Tensor = self.norm(x)
        return states


class ClipLayer(nn.Module):
    """text.clip.ClipLayer: x += attention(norm(x)), then x += ffn(norm(x)).

    Tokens attend to themselves and to those before them, not to padding.
    """

    def __init__(self, config: ClipConfig):
        super().__init__()
        width = config.width
        self.heads, self.quick = config.heads, config.activation == "quick_gelu"
        self.query, self.key, self.value, self.attention_out = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.ffn_norm = (nn.LayerNorm(width, config.epsilon) for _ in range(2))
        self.ffn_in, self.ffn_out = nn.Linear(width, config.ffn_width), nn.Linear(config.ffn_width, width)

    def forward(self, x: TextStates, bias: Float[Tensor, "b 1 s s"]) -> TextStates:
        normed = self.attention_norm(x)
        query, key, value = (self._heads(part(normed)) for part in (self.query, self.key, self.value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(2))
        hidden = self.ffn_in(self.ffn_norm(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else functional.gelu(hidden)
        states: Tensor = x + self.ffn_out(hidden)
        return states

    def _heads(self, x: TextStates) -> Float[Tensor, "b heads s width"]:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)
