"""Linear attention, and the linear-convolution hybrid (S2DiT, arXiv 2601.12719), which mixes it with a convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.chunks import Call, by_frame, chunks_of_call
from mobile_video_jax.nn.attention.full import SelfAttention
from mobile_video_jax.nn.attention.linear import EPS, FeatureMap, Features, Sums, denominator, frame_sums, numerator
from mobile_video_jax.nn.conv import DepthwiseConv
from mobile_video_jax.nn.dense import zeros
from mobile_video_jax.nn.embeddings import RopeTable
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.nn.stream import running_totals


class LinearAttention(SelfAttention):
    """rmsnorm(linear attention); a stream carries its sums."""

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
        if key_mask is not None:
            v = v * key_mask[:, :, None, None].astype(v.dtype)
        queries = FeatureMap(name="q_features")(q, rope)
        keys = FeatureMap(name="k_features")(k, rope, key_mask)
        linear = RMSNorm(axis=None, dtype=self.dtype, name="linear_norm")(self._linear(queries, keys, v))
        return self._output(self._mixed(linear, v), head_mask, x.shape[-1])

    def _mixed(self, linear: Float[Array, "b n h d"], v: Float[Array, "b n h d"]) -> Float[Array, "b n h d"]:
        return linear

    def _linear(self, queries: Features, keys: Features, v: Float[Array, "b n h d"]) -> Float[Array, "b n h d"]:
        sums = frame_sums(keys, v, self.grid)
        if self.chunks.causal:
            call = chunks_of_call(self, self.chunks, self.grid[0])
            chunk_sums = [jnp.sum(call.grouped(call.padded(x)), axis=2) for x in sums]
            names = ("values", "weights")
            totals = (running_totals(self, x, name=name) for x, name in zip(chunk_sums, names, strict=True))
            sums = Sums(*(x[:, 1:] for x in totals))
        else:
            call = Call(self.grid[0], 0)
            sums = Sums(*(jnp.sum(x, axis=1, keepdims=True) for x in sums))
        plain, turned = (call.grouped(call.padded(by_frame(x, self.grid))) for x in queries)
        out = numerator(turned, sums) / jnp.maximum(denominator(plain, sums), EPS)
        return call.flat(out).reshape(v.shape)


class LinearConvAttention(LinearAttention):
    """a rmsnorm(linear attention) + (1 - a) depthwise convolution of the values, with a = sigmoid(logit) for each head.

    The paper's channel mix of the convolution is the output layer, which both branches share. A stream carries the sums
    of linear attention and the convolution's last two frames.
    """

    def _mixed(self, linear: Float[Array, "b n h d"], v: Float[Array, "b n h d"]) -> Float[Array, "b n h d"]:
        clip = v.reshape(len(v), *self.grid, -1)
        convolved = DepthwiseConv("heads", self.dtype, name="conv")(clip).reshape(v.shape)
        share = self._share()
        return share * linear + (1 - share) * convolved

    def _share(self) -> Float[Array, "h 1"]:
        logit: jax.Array = self.param("gate", partitioned(zeros, (None,)), (self.heads,))
        return nn.sigmoid(logit)[:, None].astype(self.dtype)
