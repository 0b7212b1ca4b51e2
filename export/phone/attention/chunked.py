"""Softmax within a chunk and linear attention beyond it, under one normaliser (nn/attention/chunked.py)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from export.phone.attention.call import LARGEST, Call, Heads, Packed, State, ages, exist, last_tokens, packed
from export.phone.attention.linear import EPS, PhoneLinear, Sums
from export.phone.turn import rotate
from mobile_video_jax.cost.phone.tiles import query_chunks
from mobile_video_jax.nn.attention.layer import MASKED

Keys = Float[Tensor, "h d 1 m"]


class PhoneChunked(PhoneLinear):
    """nn.attention.chunked.ChunkedAttention of a call.

    A stream carries the sums over all frames that no longer overlap, and keys, not turned, and values of those that do.
    """

    needed: Tensor | None

    def __init__(self, attention: Any, call: Call):
        self.past_frames = call.chunks.overlap if call.streams else 0
        super().__init__(attention, call)
        before = self.past_frames if call.continues else 0
        self.register_buffer("needed", ages(before, call.grid[0], self.tokens) if before else None)

    def forward(self, x: Packed, past: State) -> tuple[Packed, State]:
        q, k = self._turned(self.q(x), self.q_scale), self._turned(self.k(x), self.k_scale)
        k, v, bias = self._shared(k), self._shared(self._heads(self.v(x))), None
        if self.needed is not None:
            k, v = (torch.cat([self._heads(past[name]), part], dim=3) for name, part in (("k", k), ("v", v)))
            exists = exist(past["frames_before"], self.needed)
            bias = ((1 - exists) * MASKED).transpose(1, 3)
        queries, keys = self._mapped(self.q_features, q), self._mapped(self.k_features, k)
        if self.needed is not None:
            keys = keys * exists
        rope, own = self._rope(), self._rope(start=self.tokens * self.past_frames if self.call.continues else 0)
        frames = self._by_frame(keys, rotate(keys, rope), v)
        out = self._chunks((rotate(q, own), queries, rotate(queries, own)), (rotate(k, rope), v), bias, frames, past)
        attended: Tensor = self.out(packed(out))
        return attended, self._kept(frames, k, v, past) if self.call.streams else {}

    def _by_frame(self, plain: Tensor, turned: Tensor, v: Tensor) -> list[Sums]:
        parts = (torch.split(x, self.tokens, dim=3) for x in (plain, turned, v))
        return [self._sums(*frame) for frame in zip(*parts, strict=True)]

    def _chunks(
        self,
        queries: tuple[Heads, Heads, Heads],
        near: tuple[Keys, Keys],
        bias: Tensor | None,
        frames: Sequence[Sums],
        past: State,
    ) -> Heads:
        """All chunks of the call. `queries` are turned for softmax, as features, and these turned."""
        if self.call.continues:
            count = (past["frames_before"] - self.past_frames).clamp(1, LARGEST) * self.tokens
            sizes = self.call.grid[0], self.call.grid[0] + self.past_frames
            return self._joint(queries, near, bias, self._carried(past), torch.log(count), sizes)
        results = []
        for start, stop in self.call.ranges():
            before = max(0, start - self.call.chunks.overlap)
            own, around = (slice(self.tokens * i, self.tokens * stop) for i in (start, before))
            far = [*frames[:before], *([] if self.call.chunks.causal else frames[stop:])]
            parts = tuple(x[..., own] for x in queries), tuple(x[..., around] for x in near)
            mean = _mean(far) if far else None
            log_count = math.log(len(far) * self.tokens) if far else 0.0
            results.append(self._joint(*parts, None, mean, log_count, (stop - start, stop - before)))
        return torch.cat(results, dim=3)

    def _joint(
        self,
        queries: tuple[Heads, ...],
        near: tuple[Keys, ...],
        bias: Tensor | None,
        far: Sums | None,
        log_count: Tensor | float,
        frames: tuple[int, int],
    ) -> Heads:
        """(sum_near exp(q k) v + n phi(q) S) / (sum_near exp(q k) + n phi(q) Z), with means S and Z of n tokens.

        `frames` are those of the queries and of the keys.
        """
        (q, plain, turned), (k, v) = queries, near
        parts = [q, *self._far(far, plain, turned)] if far else [q]
        chunks = query_chunks(*(self.tokens * count for count in frames))
        heads = []
        for i, (key, value) in enumerate(zip(k.transpose(1, 3).split(1), v.split(1), strict=True)):
            own = [x[i : i + 1] for x in parts]
            cut = zip(*(x.chunk(chunks, dim=3) for x in own), strict=True) if chunks > 1 else [own]
            joined = [_joint_head(query, key, value, bias, beyond, log_count) for query, *beyond in cut]
            heads.append(torch.cat(joined, dim=3) if chunks > 1 else joined[0])
        return torch.cat(heads)

    def _kept(self, frames: Sequence[Sums], k: Keys, v: Keys, past: State) -> State:
        """The sums with the frames that leave the overlap, and the frames that overlap the next chunk."""
        count, overlap = self.call.grid[0], self.past_frames
        values, weights = (sum(parts[1:], parts[0]) for parts in zip(*frames[:count], strict=True))
        if self.call.continues:
            before = (past["frames_before"][0] - overlap).clamp(0, LARGEST)
            after = (past["frames_before"][0] + (count - overlap)).clamp(1, LARGEST)
            carried = self._carried(past)
            values, weights = (
                x * (before / after) + y / after for x, y in zip(carried, (values, weights), strict=True)
            )
        elif overlap:  # the first frame overlaps the next chunk; no output can be a constant
            values, weights = values * 0.0, weights * 0.0
        tokens = overlap * self.tokens
        keys = count * self.tokens + (tokens if self.call.continues else 0)
        return self._state((values, weights)) | (
            {"k": last_tokens(k, tokens, keys), "v": last_tokens(v, tokens, keys)} if overlap else {}
        )


def _mean(frames: Sequence[Sums]) -> Sums:
    values, weights = (sum(parts[1:], parts[0]) * (1 / len(parts)) for parts in zip(*frames, strict=True))
    return values, weights


def _joint_head(
    q: Float[Tensor, "1 d 1 s"],
    k: Float[Tensor, "1 m 1 d"],
    v: Float[Tensor, "1 d 1 m"],
    bias: Float[Tensor, "1 m 1 1"] | None,
    beyond: Sequence[Tensor],
    log_count: Tensor | float,
) -> Float[Tensor, "1 d 1 s"]:
    """One head, with all exponents below the largest of them; `beyond` are phi(q) S and phi(q) Z, where there are."""
    logits = torch.einsum("bchq,bkhc->bkhq", q, k)
    logits = logits if bias is None else logits + bias
    largest = logits.amax(1, keepdim=True)
    if not beyond:
        weights = torch.exp(logits - largest)
        values: Tensor = torch.einsum("bkhq,bchk->bchq", weights, v)
        return values / weights.sum(1, keepdim=True)
    largest = torch.maximum(largest, log_count) if isinstance(log_count, Tensor) else largest.clamp(log_count, LARGEST)
    weights, factor = torch.exp(logits - largest), torch.exp(log_count - largest)
    far_values, far_weights = beyond
    values = torch.einsum("bkhq,bchk->bchq", weights, v) + factor * far_values
    total = weights.sum(1, keepdim=True) + factor * far_weights
    return values / total.clamp(EPS, LARGEST)
