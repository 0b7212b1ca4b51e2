"""CLIP's text transformer in PyTorch: the modules of mobile_video_jax/text/clip.py with their names and shapes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobile_video_jax.nn.attention.layer import MASKED
from mobile_video_jax.text.clip import ClipConfig


class ClipText(nn.Module):
    """text.clip.ClipText: ids [b, s] and their mask [b, s] of ones, and zeros for padding, to states [b, s, width]."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        for i in range(config.layers):
            self.add_module(f"layer_{i}", ClipLayer(config))
        self.norm = nn.LayerNorm(config.width, config.epsilon)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
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
    """text.clip.ClipLayer: x += attention(norm(x)), then x += ffn(norm(x)); tokens see earlier ones, no padding."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        width = config.width
        self.heads, self.head_dim, self.quick = config.heads, width // config.heads, config.activation == "quick_gelu"
        self.query, self.key, self.value, self.attention_out = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.ffn_norm = (nn.LayerNorm(width, config.epsilon) for _ in range(2))
        self.ffn_in, self.ffn_out = nn.Linear(width, config.ffn_width), nn.Linear(config.ffn_width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        query, key, value = (self._heads(part(normed)) for part in (self.query, self.key, self.value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(2))
        hidden = self.ffn_in(self.ffn_norm(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else functional.gelu(hidden)
        return x + self.ffn_out(hidden)

    def _heads(self, x: Tensor) -> Tensor:
        """[b, s, h d] to [b, h, s, d]."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
