"""Softmax attention over a window of frames, of all tokens (nn/attention/full.py) or of averages (ssa.py)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from export.phone.attention.call import Call, Packed, State, ages, exist, last_tokens
from export.phone.layers import PhoneHeads, attend_each
from export.phone.turn import Rope, Turn, rotate, turns
from mobile_video_jax.cost.phone.tiles import query_chunks
from mobile_video_jax.nn.attention.layer import MASKED


class PhoneWindowAttention(PhoneHeads):
    """nn.attention.full.FullAttention of a call. A stream carries keys, not turned, and values of the window."""

    cos: Tensor
    sin: Tensor
    needed: Tensor | None
    stride = 1

    def __init__(self, attention: Any, call: Call):
        super().__init__(attention)
        self.call, self.causal = call, call.chunks.causal
        self.tokens = call.tokens // self.stride**2
        self.window = call.chunks.window if call.streams else 0
        frames = self.window if call.continues else 0
        cos, sin = (x.transpose(1, 2)[:, :, None] for x in call.rope(-frames, frames + call.grid[0], self.stride))
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        scales, first = self.scales(attention), frames * self.tokens
        own: Rope = cos[..., first:], sin[..., first:]
        self.q_turn, _ = turns(scales, (own, own), 1, across=self.norm_across_heads)
        self.k_scale = Turn(scales[1], None, 1)
        self.register_buffer("needed", ages(frames, call.grid[0], self.tokens) if frames else None)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the state's tensors."""
        shape = (1, self.kv_heads * self.head_dim, 1, self.window * self.tokens)
        return dict.fromkeys(("k", "v"), shape) if self.window else {}

    def forward(self, x: Packed, past: State) -> tuple[Packed, State]:
        q, k = self._turned(self.q(x), self.q_turn), self._turned(self.k(x), self.k_scale)
        v, own, bias = self._heads(self.v(x)), self.call.grid[0] * self.tokens, None
        if self.needed is not None:
            k, v = (torch.cat([self._heads(past[name]), part], dim=3) for name, part in (("k", k), ("v", v)))
            bias = ((1 - exist(past["frames_before"], self.needed)) * MASKED).transpose(1, 3)
        count = self.window * self.tokens
        keys = own + (count if self.needed is not None else 0)
        kept = {"k": last_tokens(k, count, keys), "v": last_tokens(v, count, keys)} if count else {}
        k = rotate(k, (self.cos, self.sin))
        attended: Tensor = self.out(self._attend(q, k, v, bias, query_chunks(own, keys)))
        return attended, kept

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, count: int) -> Packed:
        """Chunk by chunk, where the call is a whole clip of a causal network; all at once else."""
        if not self.causal or self.call.streams:
            return self._softmax(q, k, v, bias, count)
        chunks = []
        for start, stop in self.call.ranges():
            first = max(0, start - self.call.chunks.window)
            near, own = (slice(self.tokens * i, self.tokens * stop) for i in (first, start))
            count = query_chunks((stop - start) * self.tokens, (stop - first) * self.tokens)
            chunks.append(self._softmax(q[..., own], k[..., near], v[..., near], None, count))
        return torch.cat(chunks, dim=3)

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, count: int) -> Packed:
        queries, keys, values = (torch.split(x, 1) for x in (q, k.transpose(1, 3), v))
        return torch.cat(attend_each(queries, keys, values, bias, count), dim=1)


class PhoneStridedAttention(PhoneWindowAttention):
    """nn.attention.ssa.StridedAttention of a call."""

    def __init__(self, attention: Any, call: Call):
        self.stride = call.chunks.stride
        super().__init__(attention, call)

    def forward(self, x: Packed, past: State) -> tuple[Packed, State]:
        frames, height, width = self.call.grid
        images = x.view(1, -1, frames * height, width)
        low = functional.avg_pool2d(images, self.stride)
        attended, kept = super().forward(low.flatten(2)[:, :, None], past)
        images = attended.view(1, -1, frames * height // self.stride, width // self.stride)
        repeated = functional.interpolate(images, scale_factor=float(self.stride), mode="nearest")
        return repeated.flatten(2)[:, :, None], kept
