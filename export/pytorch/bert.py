"""The default text encoder in PyTorch: the modules of mobile_video_jax/text/minilm.py with their names and shapes."""

from torch import Tensor, nn
from torch.nn import functional

from mobile_video_jax.nn.attention.layer import MASKED
from mobile_video_jax.text.minilm import BertConfig


class Bert(nn.Module):
    """text.minilm.Bert: ids [b, s] and their mask [b, s], 1 for a token and 0 for padding, to states [b, s, width]."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.token_types = nn.Embedding(config.token_types, config.width)
        self.norm = layer_norm(config)
        for i in range(config.layers):
            self.add_module(f"layer_{i}", BertLayer(config))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids) + (self.positions.weight[: ids.shape[1]] + self.token_types.weight[0])
        x = self.norm(x)
        bias = (1 - mask)[:, None, None, :] * MASKED
        for i in range(self.config.layers):
            x = self.get_submodule(f"layer_{i}")(x, bias)
        return x


class BertLayer(nn.Module):
    """text.minilm.BertLayer: x = norm(x + attention(x)), then x = norm(x + ffn(x))."""

    def __init__(self, config: BertConfig):
        super().__init__()
        width = config.width
        self.heads, self.head_dim = config.heads, width // config.heads
        self.query, self.key, self.value, self.attention_out = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.ffn_norm = layer_norm(config), layer_norm(config)
        self.ffn_in, self.ffn_out = nn.Linear(width, config.ffn_width), nn.Linear(config.ffn_width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self._heads(part(x)) for part in (self.query, self.key, self.value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = self.attention_norm(x + self.attention_out(attended.transpose(1, 2).flatten(2)))
        return self.ffn_norm(x + self.ffn_out(functional.gelu(self.ffn_in(x))))

    def _heads(self, x: Tensor) -> Tensor:
        """[b, s, h d] to [b, h, s, d]."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


def layer_norm(config: BertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.width, eps=1e-12)
