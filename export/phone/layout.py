"""The two forms of a transformer for Core ML, which take and give the same tensors and lay them out differently inside.

phone, for the neural engine: [1, c, 1, s], linear layers as 1x1 convolutions, attention head by head.
gpu, for GPU and CPU: [1, s, 1, c], matrix products, attention of all heads at once.
"""

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import PhoneAttention, Rope, pointwise, rotate
from export.pytorch.dit import Attention
from export.pytorch.safe_norms import rms_normalize
from mobile_video_jax.nn.attention.layer import MASKED


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axis of channels, and the layers for it, made of a weight [o, i] and bias or of the mirror's attention.

    `turn` brings the interface's [1, c, 1, s] into the form, and back. `rope` brings a table [h, s, d/2], where h may
    be 1 for all heads, into that of queries and keys. `bias` makes what is added to the logits of a mask [1, 1, 1, m]
    of ones and zeros.
    """

    channels: int
    layer: Callable[[Tensor, Tensor | None], nn.Module]
    attention: Callable[[Attention], nn.Module]
    turn: Callable[[Tensor], Tensor]
    rope: Callable[[Tensor], Tensor]
    bias: Callable[[Tensor], Tensor]

    def linear(self, linear: nn.Linear) -> nn.Module:
        """A linear layer over channels."""
        return self.layer(linear.weight, linear.bias)


class GpuAttention(nn.Module):
    """nn.attention.Attention over tokens [1, s, 1, c]."""

    q_scale: Tensor
    k_scale: Tensor

    def __init__(self, attention: Attention):
        super().__init__()
        self.heads, self.norm_across_heads = attention.heads, attention.norm_across_heads
        self.eps = attention.norm_eps
        self.q, self.k, self.v, self.out = attention.q, attention.k, attention.v, attention.out
        self.register_buffer("q_scale", attention.q_norm.weight.detach())
        self.register_buffer("k_scale", attention.k_norm.weight.detach())

    def forward(
        self, x: Tensor, context: Tensor, rope: Rope | None, context_rope: Rope | None, bias: Tensor | None = None
    ) -> Tensor:
        q = self._normalized(self.q(x), self.q_scale, rope).transpose(1, 2)
        k = self._normalized(self.k(context), self.k_scale, context_rope).transpose(1, 2)
        v = self._heads(self.v(context)).transpose(1, 2)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        attended: Tensor = self.out(out.transpose(1, 2).flatten(2)[:, :, None])
        return attended

    def _heads(self, x: Tensor) -> Tensor:
        """[1, s, 1, h d] to [1, s, h, d]."""
        return x.squeeze(2).unflatten(2, (self.heads, -1))

    def _normalized(self, x: Tensor, scale: Tensor, rope: Rope | None) -> Tensor:
        x = x if self.norm_across_heads else self._heads(x)
        normalized = rms_normalize(x, axis=3, epsilon=self.eps) * scale
        heads = self._heads(normalized) if self.norm_across_heads else normalized
        return heads if rope is None else rotate(heads, rope, axis=3)


def matrix(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer, made without memory of its own."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    linear.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))
    return linear


def additive(mask: Tensor) -> Tensor:
    """Zero for tokens, and for padding what no logit comes near."""
    return (1 - mask) * MASKED


LAYOUTS = {
    "phone": Layout(
        channels=1,
        layer=pointwise,
        attention=PhoneAttention,
        turn=lambda x: x,
        rope=lambda table: table.transpose(1, 2)[:, :, None],
        bias=lambda mask: additive(mask).transpose(1, 3),
    ),
    "gpu": Layout(
        channels=3,
        layer=matrix,
        attention=GpuAttention,
        turn=lambda x: x.transpose(1, 3),
        rope=lambda table: table.transpose(0, 1)[None],
        bias=additive,
    ),
}
PHONE = LAYOUTS["phone"]
