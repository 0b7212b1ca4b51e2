"""Trained heads of the discriminator: from a backbone's features of noisy clips to one logit per clip."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Tokens
from mobile_video_jax.dit.block import DitBlock
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.dit.model import BackboneOutput
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.norm import RMSNorm, rms_normalize

Logits = Float[Array, "b"]
Grid = tuple[int, ...]  # latent frames, rows and columns of the tokens


class DitHead(nn.Module):
    """Transformer blocks with the backbone's conditions, the mean over tokens, and an MLP.

    The discriminator's head in arXiv 2507.13343. A fresh head returns 0 for every clip.
    """

    blocks: tuple[BlockShape, ...]
    head_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: BackboneOutput, grid: Grid) -> Logits:
        x, conditions, _ = features
        for i, shape in enumerate(self.blocks):
            x = DitBlock(shape, self.head_dim, self.dtype, name=f"block_{i}")(x, conditions)
        return _Classifier(x.shape[-1], name="classifier")(x, conditions.token_mask)


class ConvHead(nn.Module):
    """Baseline: two convolutions over latent frames, rows and columns instead of each block.

    In half the width d two of them have 13.5 d^2 parameters, a block with an FFN of 4 d has 16 d^2.
    """

    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: BackboneOutput, grid: Grid) -> Logits:
        b, n, d = features.x.shape
        token_mask = features.conditions.token_mask
        x = Dense(d // 2, ("embed", None), dtype=self.dtype, name="in")(rms_normalize(features.x))
        for i in range(2 * self.blocks):
            # Padding stays zero, as convolutions pad the border of a clip with zeros.
            x = x if token_mask is None else jnp.where(token_mask[..., None], x, 0)
            x = Conv(d // 2, True, dtype=self.dtype, name=f"conv_{i}")(x.reshape(b, *grid, -1))
            x = nn.leaky_relu(RMSNorm(axis=None, dtype=self.dtype, name=f"norm_{i}")(x), 0.2).reshape(b, n, -1)
        return _Classifier(d // 2, name="classifier")(x, token_mask)


class _Classifier(nn.Module):
    """The mean over a clip's tokens, and two layers."""

    width: int

    @nn.compact
    def __call__(self, x: Tokens, token_mask: Bool[Array, "b n"] | None) -> Logits:
        where = None if token_mask is None else token_mask[..., None]
        pooled = jnp.mean(rms_normalize(x).astype(jnp.float32), axis=1, where=where)
        hidden = nn.gelu(Dense(self.width, ("embed", None), name="in")(pooled), approximate=True)
        return Dense(1, ("embed", None), zeros, name="logit")(hidden)[:, 0]
