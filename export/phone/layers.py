"""Layers as the phone's neural engine takes them: tensors [b, c, 1, s], linear layers as 1x1 convolutions.

The layout is that of Apple's ml-ane-transformers. Weights are shared with the mirror that a layer is made from.
"""

import torch
from torch import Tensor, nn

from export.pytorch.dit import Attention
from export.pytorch.safe_norms import rms_normalize

Rope = tuple[Tensor, Tensor]


def convolution(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """The convolution [o, i, n, n] that keeps sizes."""
    outputs, inputs, size, _ = weight.shape
    # Made without memory of its own.
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias is not None, device="meta")
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return conv


def pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A linear layer [o, i] over channels."""
    return convolution(weight[:, :, None, None], bias)


def column(vector: Tensor) -> Tensor:
    """A constant for each channel."""
    return vector.detach()[None, :, None, None]


def rotate(x: Tensor, rope: Rope, axis: int = 1) -> Tensor:
    """nn.embeddings.apply_rope for heads whose d channels lie along an axis; there the tables have d/2."""
    cos, sin = rope
    first, second = x.chunk(2, dim=axis)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=axis)


class PhoneAttention(nn.Module):
    """nn.attention.Attention, one head at a time; norms and rotation are of all heads at once, as a batch of them.

    Norms across heads come before the cut into heads.
    """

    q_scale: Tensor
    k_scale: Tensor

    def __init__(self, attention: Attention):
        super().__init__()
        self.heads, self.head_dim = attention.heads, attention.q.weight.shape[0] // attention.heads
        self.norm_across_heads, self.eps = attention.norm_across_heads, attention.norm_eps
        self.q, self.k, self.v = (pointwise(part.weight, part.bias) for part in (attention.q, attention.k, attention.v))
        self.out = pointwise(attention.out.weight, attention.out.bias)
        # The rotation is linear, so the logits' factor may stand before it.
        self.register_buffer("q_scale", column(attention.q_norm.weight) * self.head_dim**-0.5)
        self.register_buffer("k_scale", column(attention.k_norm.weight))

    def forward(
        self, x: Tensor, context: Tensor, rope: Rope | None, context_rope: Rope | None, bias: Tensor | None = None
    ) -> Tensor:
        """Attention of x [1, c, 1, s] to the context [1, c, 1, m]; `bias` [1, m, 1, 1] is added to the logits."""
        q = self._normalized(self.q(x), self.q_scale, rope)
        k = self._normalized(self.k(context), self.k_scale, context_rope).transpose(1, 3)
        v = self._heads(self.v(context))
        heads = [_attend(*of_head, bias) for of_head in zip(q.split(1), k.split(1), v.split(1), strict=True)]
        attended: Tensor = self.out(torch.cat(heads, dim=1))
        return attended

    def _normalized(self, x: Tensor, scale: Tensor, rope: Rope | None) -> Tensor:
        x = x if self.norm_across_heads else self._heads(x)
        heads = self._heads(rms_normalize(x, epsilon=self.eps) * scale)
        return heads if rope is None else rotate(heads, rope)

    def _heads(self, x: Tensor) -> Tensor:
        """[1, h d, 1, s] to [h, d, 1, s]."""
        return x.view(self.heads, self.head_dim, 1, -1)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """One head: q [1, d, 1, s], k [1, m, 1, d], v [1, d, 1, m] to [1, d, 1, s]."""
    logits = torch.einsum("bchq,bkhc->bkhq", q, k)
    weights = torch.softmax(logits if bias is None else logits + bias, dim=1)
    return torch.einsum("bkhq,bchk->bchq", weights, v)
