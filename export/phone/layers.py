"""Layers for the phone's neural engine: tensors [b, c, 1, s], linear layers as 1x1 convolutions.

The layout is that of Apple's ml-ane-transformers. Weights are shared with the mirror that a layer is made from.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from export.pytorch.attention import Attention
from export.pytorch.safe_norms import rms_normalize

# Cosines and sines for heads [h, d, 1, s], of all heads or of each; or in the other layout, [1, s, h, d].
Rope = tuple[Float[Tensor, "_ _ _ _"], Float[Tensor, "_ _ _ _"]]


def convolution(weight: Float[Tensor, "o i k k"], bias: Float[Tensor, "o"] | None) -> nn.Conv2d:
    """A convolution that keeps heights and widths."""
    outputs, inputs, size, _ = weight.shape
    # On the meta device it allocates no memory of its own.
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias is not None, device="meta")
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return conv


def pointwise(weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None) -> nn.Conv2d:
    """A linear layer over channels."""
    return convolution(weight[:, :, None, None], bias)


def column(vector: Float[Tensor, "c"]) -> Float[Tensor, "1 c 1 1"]:
    """A constant for each channel."""
    return vector.detach()[None, :, None, None]


def rotate(x: Float[Tensor, "_ _ _ _"], rope: Rope, axis: int = 1) -> Float[Tensor, "_ _ _ _"]:
    """nn.embeddings.apply_rope for heads whose d channels lie along an axis; the tables have d/2 there."""
    cos, sin = rope
    first, second = x.chunk(2, dim=axis)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=axis)


class PhoneAttention(nn.Module):
    """nn.attention.Attention, one head at a time; norms and rotation take all heads at once, as a batch.

    A norm across heads comes before the split into heads. `chunks` of queries keep their logits on the chip.
    """

    q_scale: Tensor
    k_scale: Tensor

    def __init__(self, attention: Attention, chunks: int = 1):
        super().__init__()
        self.chunks = chunks
        self.heads, self.head_dim = attention.heads, attention.q.weight.shape[0] // attention.heads
        self.norm_across_heads, self.eps = attention.norm_across_heads, attention.norm_eps
        self.q, self.k, self.v = (pointwise(part.weight, part.bias) for part in (attention.q, attention.k, attention.v))
        self.out = pointwise(attention.out.weight, attention.out.bias)
        # The rotation is linear, so the logits' factor may come before it.
        self.register_buffer("q_scale", column(attention.q_norm.weight) * self.head_dim**-0.5)
        self.register_buffer("k_scale", column(attention.k_norm.weight))

    def forward(
        self,
        x: Float[Tensor, "1 c 1 s"],
        context: Float[Tensor, "1 c 1 m"],
        rope: Rope | None,
        context_rope: Rope | None,
        bias: Float[Tensor, "1 m 1 1"] | None = None,
    ) -> Float[Tensor, "1 c 1 s"]:
        """Attention of x to the context; `bias` is added to the logits."""
        q = self._normalized(self.q(x), self.q_scale, rope)
        k = self._normalized(self.k(context), self.k_scale, context_rope).transpose(1, 3)
        v = self._heads(self.v(context))
        queries, keys, values = (torch.split(part, 1) for part in (q, k, v))
        heads = [attend(*head, bias, self.chunks) for head in zip(queries, keys, values, strict=True)]
        attended: Tensor = self.out(torch.cat(heads, dim=1))
        return attended

    def _normalized(self, x: Float[Tensor, "1 hd 1 s"], scale: Tensor, rope: Rope | None) -> Float[Tensor, "h d 1 s"]:
        x = x if self.norm_across_heads else self._heads(x)
        heads = self._heads(rms_normalize(x, epsilon=self.eps) * scale)
        return heads if rope is None else rotate(heads, rope)

    def _heads(self, x: Float[Tensor, "_ _ 1 s"]) -> Float[Tensor, "h d 1 s"]:
        return x.view(self.heads, self.head_dim, 1, -1)


def attend(
    q: Float[Tensor, "1 d 1 s"],
    k: Float[Tensor, "1 m 1 d"],
    v: Float[Tensor, "1 d 1 m"],
    bias: Float[Tensor, "1 m 1 1"] | None,
    chunks: int = 1,
) -> Float[Tensor, "1 d 1 s"]:
    """Attention of one head, one chunk of queries after the other; `bias` is added to the logits."""
    if chunks > 1:
        return torch.cat([attend(part, k, v, bias) for part in q.chunk(chunks, dim=3)], dim=3)
    logits = torch.einsum("bchq,bkhc->bkhq", q, k)
    weights = torch.softmax(logits if bias is None else logits + bias, dim=1)
    return torch.einsum("bkhq,bchk->bchq", weights, v)
