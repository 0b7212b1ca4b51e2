"""The two tensor layouts of a transformer's package, with the same inputs and outputs.

phone, for the neural engine: [1, c, 1, s], linear layers as 1x1 convolutions, attention head by head.
gpu, for GPU and CPU: [1, s, 1, c], matrix products, attention of all heads at once.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import PhoneAttention, pointwise
from export.phone.pieces import piecewise
from export.phone.turn import Rope, Turn, turns
from export.pytorch.attention import Attention, shared
from export.pytorch.safe_norms import rms_normalize
from export.tensors import PhoneMask
from mobile_video_jax.nn.attention.layer import MASKED

LaidOut = Float[Tensor, "1 _ 1 _"]  # [1, c, 1, s] or [1, s, 1, c]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axis of channels, and the layers for it, made from the mirror's weights or attention."""

    channels: int
    layer: Callable[[Float[Tensor, "o i"], Float[Tensor, "o"] | None], nn.Module]
    # Of the chunks that queries are cut into, and the tables of queries and of keys.
    attention: Callable[[Attention, int, tuple[Rope, Rope] | None], nn.Module]
    turn: Callable[[LaidOut], LaidOut]  # from [1, c, 1, s], in which packages take and return it, and back
    rope: Callable[[Float[Tensor, "h s d"]], Float[Tensor, "_ _ _ _"]]  # h is 1 for a table of all heads
    bias: Callable[[PhoneMask], LaidOut]  # what is added to the logits
    in_pieces: bool  # whether values that stay on the chip cost less

    @property
    def tokens(self) -> int:
        """The axis of tokens."""
        return 4 - self.channels

    def piecewise(self, function: Callable[..., LaidOut], *tensors: LaidOut) -> LaidOut:
        """A function of tokens, in pieces where that costs less."""
        return piecewise(function, *tensors) if self.in_pieces else function(*tensors)

    def linear(self, linear: nn.Linear) -> nn.Module:
        """A linear layer over channels."""
        return self.layer(linear.weight, linear.bias)


class GpuAttention(nn.Module):
    """nn.attention.Attention over tokens [1, s, 1, c]."""

    def __init__(self, attention: Attention, rope: tuple[Rope, Rope] | None):
        super().__init__()
        self.heads, self.norm_across_heads = attention.heads, attention.norm_across_heads
        self.head_dim, self.kv_heads = attention.head_dim, attention.kv_heads
        self.eps = attention.norm_eps
        self.q, self.k, self.v, self.out = attention.q, attention.k, attention.v, attention.out
        scales = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
        shaped = scales[0][None, None, None], scales[1][None, None, None]
        self.q_turn, self.k_turn = turns(shaped, rope, 3, across=self.norm_across_heads)

    def forward(
        self,
        x: Float[Tensor, "1 s 1 c"],
        context: Float[Tensor, "1 m 1 c"],
        bias: Float[Tensor, "1 1 1 m"] | None = None,
    ) -> Float[Tensor, "1 s 1 c"]:
        """Attention of x to the context; `bias` is added to the logits."""
        q = self._turned(self.q(x), self.q_turn).transpose(1, 2)
        k = self._turned(self.k(context), self.k_turn).transpose(1, 2)
        v = self._heads(self.v(context)).transpose(1, 2)
        k, v = (shared(x, self.kv_heads, self.heads, 1) for x in (k, v))
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        attended: Tensor = self.out(heads.transpose(1, 2).flatten(2)[:, :, None])
        return attended

    def _heads(self, x: Float[Tensor, "1 s 1 hd"]) -> Float[Tensor, "1 s h d"]:
        return torch.unflatten(x.squeeze(2), 2, (-1, self.head_dim))

    def _turned(self, x: Float[Tensor, "1 s 1 hd"], turn: Turn) -> Float[Tensor, "1 s h d"]:
        if self.norm_across_heads:
            return turn.rotated(self._heads(turn.scaled(rms_normalize(x, 3, self.eps))))
        return turn.rotated(turn.scaled(rms_normalize(self._heads(x), 3, self.eps)))


def matrix(weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None) -> nn.Linear:
    """A linear layer. On the meta device it allocates no memory of its own."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    linear.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))
    return linear


def additive(mask: PhoneMask) -> PhoneMask:
    """Zero for tokens, and for padding a number far below any logit."""
    return (1 - mask) * MASKED


LAYOUTS = {
    "phone": Layout(
        channels=1,
        layer=pointwise,
        attention=PhoneAttention,
        turn=lambda x: x,
        rope=lambda table: table.transpose(1, 2)[:, :, None],
        bias=lambda mask: additive(mask).transpose(1, 3),
        in_pieces=True,
    ),
    "gpu": Layout(
        channels=3,
        layer=matrix,
        attention=lambda attention, _, rope: GpuAttention(attention, rope),  # its one op holds no logits
        turn=lambda x: x.transpose(1, 3),
        rope=lambda table: table.transpose(0, 1)[None],
        bias=additive,
        in_pieces=False,
    ),
}
PHONE = LAYOUTS["phone"]
