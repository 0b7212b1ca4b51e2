"""Linear attention gated with a depthwise convolution (nn/attention/lcha.py)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from export.phone.attention.call import LARGEST, Call, Packed, State, packed
from export.phone.attention.linear import EPS, PhoneLinear, Sums
from export.phone.turn import rotate
from export.pytorch.safe_norms import rms_normalize

QUERY_SCALE = 16.0  # of features of queries, which the quotient cancels, so that EPS clamps few of them


class PhoneLinearConv(PhoneLinear):
    """nn.attention.lcha.LinearConvAttention of a call. A stream carries both sums and the values of two frames."""

    def __init__(self, attention: Any, call: Call):
        super().__init__(attention, call)
        self.q_features = self._features(attention.q_features, self.head_dim**0.5, QUERY_SCALE)
        share = torch.sigmoid(attention.gate.detach())[:, None].expand(-1, self.head_dim).reshape(-1)
        scale = share * attention.linear_norm.weight.detach().repeat(self.heads)
        self.register_buffer("linear_scale", scale.view(self.heads, self.head_dim, 1, 1))
        taps = attention.conv.taps.detach() * (1 - share)
        self.taps = nn.ModuleList(_depthwise(tap) for tap in taps)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        conv = {"conv": (1, self.heads * self.head_dim, 1, 2 * self.tokens)}
        return super().shapes | (conv if self.call.streams else {})

    def forward(self, x: Packed, past: State) -> tuple[Packed, State]:
        q, k = self._turned(self.q(x), self.q_scale), self._turned(self.k(x), self.k_scale)
        k, v = self._shared(k), self._shared(self._heads(self.v(x)))
        packed_v, rope = packed(v), self._rope()
        queries, keys = self._mapped(self.q_features, q), self._mapped(self.k_features, k)
        linear, kept = self._linear(queries, rotate(queries, rope), keys, rotate(keys, rope), v, past)
        linear = rms_normalize(linear) * self.get_buffer("linear_scale")
        convolved, kept_frames = self._convolved(packed_v, past)
        attended: Tensor = self.out(packed(linear) + convolved)
        return attended, kept | kept_frames

    def _linear(
        self, queries: Tensor, turned: Tensor, keys: Tensor, turned_keys: Tensor, v: Tensor, past: State
    ) -> tuple[Tensor, State]:
        chunks, total, frames = [], None, 0
        ranges = self.call.ranges() if self.call.chunks.causal else [(0, self.call.grid[0])]
        for start, stop in ranges:
            own = slice(self.tokens * start, self.tokens * stop)
            sums = self._sums(*(part[..., own] for part in (keys, turned_keys, v)))
            total = sums if total is None else (total[0] + sums[0], total[1] + sums[1])
            frames += stop - start
            mean = self._mean(total, frames, past)
            values, weights = self._far(mean, queries[..., own], turned[..., own])
            chunks.append(values / weights.clamp(EPS, LARGEST))
        return torch.cat(chunks, dim=3), self._state(mean) if self.call.streams else {}

    def _mean(self, total: Sums, frames: int, past: State) -> Sums:
        """The means over this call's frames and those before it."""
        if not self.call.continues:
            return total[0] * (1 / frames), total[1] * (1 / frames)
        before = past["frames_before"][0]
        after = before + frames
        values, weights = self._carried(past)
        return values * (before / after) + total[0] / after, weights * (before / after) + total[1] / after

    def _convolved(self, v: Packed, past: State) -> tuple[Packed, State]:
        frames, height, width = self.call.grid
        first = v[..., : self.tokens]
        clip = torch.cat([past["conv"], v] if self.call.continues else [first, first, v], dim=3)
        kept = {"conv": clip[..., -2 * self.tokens :]} if self.call.streams else {}
        images = clip.view(-1, frames + 2, height, width).transpose(0, 1)
        y = self.taps[0](images[:frames])
        for i in (1, 2):
            y = y + self.taps[i](images[i : i + frames])
        return y.transpose(0, 1).reshape(1, -1, 1, frames * self.tokens), kept


def _depthwise(tap: Float[Tensor, "k k c"]) -> nn.Conv2d:
    """A convolution of each channel alone."""
    size, _, channels = tap.shape
    conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False, device="meta")
    conv.weight = nn.Parameter(tap.permute(2, 0, 1)[:, None].contiguous(), requires_grad=False)
    return conv
