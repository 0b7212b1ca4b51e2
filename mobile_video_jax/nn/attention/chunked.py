"""Softmax within a chunk, linear attention beyond it, under one normaliser (ReHyAt, CVPR 2026)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.chunks import Call, by_frame, chunks_of_call, key_windows, windows
from mobile_video_jax.nn.attention.full import SelfAttention
from mobile_video_jax.nn.attention.layer import MASKED
from mobile_video_jax.nn.attention.linear import EPS, FeatureMap, Features, Sums, denominator, frame_sums, numerator
from mobile_video_jax.nn.embeddings import RopeTable, apply_rope
from mobile_video_jax.nn.stream import running_totals, with_past

Heads = Float[Array, "b n h d"]


class ChunkedAttention(SelfAttention):
    """(sum_near exp(q k / sqrt d) v + phi(q) S) / (sum_near exp(q k / sqrt d) + phi(q) Z).

    Near are a chunk and the `overlap` frames before it; S and Z sum over all other frames, or where it is causal over
    those before. A stream carries both sums, and keys, values and sums of the frames that overlap.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x: Float[Array, "b n d"],
        *,
        rope: RopeTable,
        mask: Bool[Array, "b 1 n"] | None = None,
        head_mask: Float[Array, "*b h"] | None = None,
    ) -> Float[Array, "b n d"]:
        key_mask = None if mask is None else mask[:, 0]
        q, k, v = self._projected(x, x, head_mask)
        queries = FeatureMap(name="q_features")(q, rope)
        keys = FeatureMap(name="k_features")(k, rope, key_mask)
        call = chunks_of_call(self, self.chunks, self.grid[0])
        far = self._far(keys, v, call)
        out = self._joint(apply_rope(q, rope), apply_rope(k, rope), v, key_mask, queries, far, call)
        return self._output(out.astype(self.dtype), head_mask, x.shape[-1])

    def _far(self, keys: Features, v: Heads, call: Call) -> Sums:
        """The sums over the frames that each chunk does not attend to by softmax."""
        overlap, names = self.chunks.overlap, ("values", "weights")

        def sums_of(x: Float[Array, "b t *rest"], name: str) -> Float[Array, "b c *rest"]:
            frames = with_past(self, call.padded(x), overlap, zeros=True, name=f"overlap_{name}")
            passed = jnp.sum(call.grouped(frames[:, : frames.shape[1] - overlap]), axis=2)
            far = running_totals(self, passed, name=name)[:, :-1]
            if self.chunks.causal:
                return far
            coming = jnp.sum(call.grouped(frames[:, overlap:]), axis=2)
            return far + jnp.cumsum(coming[:, ::-1], axis=1)[:, ::-1] - coming

        return Sums(*(sums_of(x, name) for x, name in zip(frame_sums(keys, v, self.grid), names, strict=True)))

    def _joint(
        self,
        q: Heads,
        k: Heads,
        v: Heads,
        mask: Bool[Array, "b n"] | None,
        queries: Features,
        far: Sums,
        call: Call,
    ) -> Heads:
        overlap = self.chunks.overlap
        q = call.grouped(call.padded(by_frame(q, self.grid)))
        near = (windows(self, by_frame(x, self.grid), call, overlap, name=name) for x, name in ((k, "k"), (v, "v")))
        k, v = (x.reshape(*x.shape[:2], -1, *x.shape[4:]) for x in near)
        valid = key_windows(self, self.grid, mask, call, overlap, len(q))
        logits = jnp.einsum("bcfphd,bcmhd->bcfphm", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
        logits = jnp.where(valid[:, :, None, None, None], logits, MASKED)
        # At least 0, so that the factor exp(-largest) of the linear part cannot overflow.
        largest = jnp.maximum(jnp.max(logits, axis=-1, keepdims=True), 0)
        weights, factor = jnp.exp(logits - largest), jnp.exp(-largest)
        plain, turned = (call.grouped(call.padded(by_frame(x, self.grid))) for x in queries)
        values = jnp.einsum("bcfphm,bcmhd->bcfphd", weights.astype(v.dtype), v).astype(jnp.float32)
        values = values + factor * numerator(turned, far)
        total = jnp.sum(weights, axis=-1, keepdims=True) + factor * denominator(plain, far)
        return call.flat(values / jnp.maximum(total, EPS)).reshape(len(q), -1, *q.shape[4:])
