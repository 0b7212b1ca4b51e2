"""Trained heads of the discriminator: from a backbone's features of noisy clips to logits."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Tokens
from mobile_video_jax.dit.block import DitBlock
from mobile_video_jax.dit.config import BlockShape, Norms
from mobile_video_jax.dit.model import BackboneOutput
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.norm import RMSNorm, rms_normalize

Features = tuple[Any, ...]  # of each tap, as its head takes them
Logits = Float[Array, "b k"]
Grid = tuple[int, ...]  # latent frames, rows and columns of the tokens
Pooling = Literal["clip", "frame", "token"]  # what one logit is of
TokenMask = Bool[Array, "b n"]  # False = padding of the clip
HeadOutput = tuple[Tokens, TokenMask | None]


class DitHead(nn.Module):
    """Transformer blocks with the backbone's conditions: the discriminator's head in arXiv 2507.13343."""

    blocks: tuple[BlockShape, ...]
    head_dim: int
    dtype: Any = jnp.float32
    norms: Norms = Norms()

    @nn.compact
    def __call__(self, features: BackboneOutput, grid: Grid) -> HeadOutput:
        x, conditions, _ = features
        for i, shape in enumerate(self.blocks):
            x = DitBlock(shape, self.head_dim, self.dtype, self.norms, name=f"block_{i}")(x, conditions)
        return x, conditions.token_mask


class ConvHead(nn.Module):
    """Baseline: two convolutions over latent frames, rows and columns instead of each block.

    In half the width d two of them have 13.5 d^2 parameters, a block with an FFN of 4 d has 16 d^2.
    """

    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: BackboneOutput, grid: Grid) -> HeadOutput:
        b, n, d = features.x.shape
        token_mask = features.conditions.token_mask
        x = Dense(d // 2, ("embed", None), dtype=self.dtype, name="in")(rms_normalize(features.x))
        for i in range(2 * self.blocks):
            # Padding stays zero, as convolutions pad the border of a clip with zeros.
            x = x if token_mask is None else jnp.where(token_mask[..., None], x, 0)
            x = Conv(d // 2, True, dtype=self.dtype, name=f"conv_{i}")(x.reshape(b, *grid, -1))
            x = nn.leaky_relu(RMSNorm(axis=None, dtype=self.dtype, name=f"norm_{i}")(x), 0.2).reshape(b, n, -1)
        return x, token_mask


class Heads(nn.Module):
    """A head on the features of each tap, and an MLP on the mean over the tokens of each pooled group.

    A head returns its tokens, frame after frame, and their mask; taps may have grids of their own. Fresh ones return 0
    for every clip.
    """

    heads: tuple[nn.Module, ...]
    pooling: Pooling

    def groups(self, grid: Grid) -> int:
        """Logits of one tap: one for a clip, or for each of its latent frames or tokens."""
        return {"clip": 1, "frame": grid[0], "token": grid[0] * grid[1] * grid[2]}[self.pooling]

    @nn.compact
    def __call__(self, features: Features, grid: Grid) -> Logits:
        logits = []
        for i, (head, tapped) in enumerate(zip(self.heads, features, strict=True)):
            x, token_mask = head.copy(name=f"tap_{i}")(tapped, grid)
            classifier = _Classifier(x.shape[-1], self.groups(grid), name=f"classifier_{i}")
            logits.append(classifier(x, token_mask))
        return jnp.concatenate(logits, axis=1)


class _Classifier(nn.Module):
    """The mean over the tokens of each group, and two layers."""

    width: int
    groups: int

    @nn.compact
    def __call__(self, x: Tokens, token_mask: TokenMask | None) -> Logits:
        x = rms_normalize(x).astype(jnp.float32).reshape(x.shape[0], self.groups, -1, x.shape[2])
        weights = jnp.ones(x.shape[:3]) if token_mask is None else token_mask.reshape(x.shape[:3]).astype(jnp.float32)
        total = jnp.maximum(jnp.sum(weights, axis=2), 1)[..., None]
        pooled = jnp.sum(x * weights[..., None], axis=2) / total
        hidden = nn.gelu(Dense(self.width, ("embed", None), name="in")(pooled), approximate=True)
        return Dense(1, ("embed", None), zeros, name="logit")(hidden)[..., 0]


def pooled_mask(token_mask: TokenMask, groups: int) -> Bool[Array, "b k"]:
    """True for groups with a token that is no padding."""
    return jnp.any(token_mask.reshape(token_mask.shape[0], groups, -1), axis=2)
