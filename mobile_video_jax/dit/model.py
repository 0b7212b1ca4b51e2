"""The text-to-video diffusion transformer."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates, Tokens
from mobile_video_jax.dit.block import DitBlock
from mobile_video_jax.dit.config import BlockShape, DitConfig, Norms
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.modulation import Modulation, modulate, modulation_table
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.embed import time_features
from mobile_video_jax.nn.norm import layer_normalize, rms_normalize
from mobile_video_jax.nn.rope import RopeTable, fraction_rope_table, rope_table
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.parallel.rules import constrain_to_sequence


class BackboneOutput(NamedTuple):
    """The residual stream after some block, what every block takes beside it, and the embedding of time and text."""

    x: Tokens
    conditions: tuple[Any, ...]
    embedding: Float[Array, "b f d"]


class _ScanBlock(nn.Module):
    """A DitBlock in the (carry, output) form that nn.scan asks for."""

    shape: BlockShape
    head_dim: int
    dtype: Any
    norms: Norms
    rope_heads: tuple[int, ...]

    @nn.compact
    def __call__(
        self,
        x: Tokens,
        modulation: Modulation,
        text: TextStates,
        text_mask: TextMask,
        rope: RopeTable,
        mask: Bool[Array, "b n"] | None,
        keep: Masks,
    ) -> tuple[Tokens, None]:
        block = DitBlock(self.shape, self.head_dim, self.dtype, self.norms, self.rope_heads, name="block")
        return block(x, modulation, text, text_mask, rope, mask, keep), None


class Dit(nn.Module):
    """Predicts the velocity of noisy latents x_t at time t, given per-token text states.

    Every latent place is one token (patch 1); position enters through 3-D RoPE alone. A fresh model predicts 0.
    Latent frames may each have a time of their own: one that is given has time 0. `mask` is False where a clip is
    padding, which changes nothing elsewhere. `keep` switches off blocks, heads and FFN channels (dit/masks.py).
    """

    config: DitConfig

    @nn.compact
    def __call__(
        self,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        mask: LatentMask | None = None,
        keep: Masks = ALL,
    ) -> Latents:
        stream = self.stream(x_t, t, text, text_mask, mask, keep)
        x = _Output(x_t.shape[-1], self.config, name="output")(stream.x, stream.embedding)
        return x.reshape(x_t.shape)

    def stream(
        self, x_t: Latents, t: FrameTimes, text: TextStates, text_mask: TextMask, mask: LatentMask | None, keep: Masks
    ) -> BackboneOutput:
        """The residual stream after the last block."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        b, lt, lh, lw, channels = x_t.shape
        rope = grid_rope(cfg, (lt, lh, lw))
        text = _TextProjection(cfg.width, dtype, name="text_projection")(text)
        embedding = self._time_embedding(t.reshape(b, -1), text, text_mask)
        shared = Dense(6 * cfg.width, ("embed", None), zeros, dtype=dtype, name="modulation")(nn.silu(embedding))
        x = Dense(cfg.width, (None, "embed"), dtype=dtype, name="patch_in")(x_t.reshape(b, -1, channels))
        places = None if mask is None else mask.reshape(b, -1)
        conditions = (shared.reshape(b, -1, 6, cfg.width), text, text_mask, rope, places)
        return BackboneOutput(self._blocks(x, keep, *conditions), conditions, embedding)

    def _time_embedding(self, t: Float[Array, "b f"], text: TextStates, mask: TextMask) -> Float[Array, "b f d"]:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        features = time_features(t.reshape(-1), cfg.time_features).reshape(*t.shape, -1)
        hidden = Dense(cfg.width, (None, "embed"), dtype=dtype, name="time_in")(features)
        embedding = Dense(cfg.width, ("embed", None), dtype=dtype, name="time_out")(nn.silu(hidden))
        if cfg.pooled_text:
            weights = mask.astype(dtype)[..., None]
            pooled = jnp.sum(text * weights, axis=1) / jnp.sum(weights, axis=1)
            pooled = Dense(cfg.width, ("embed", None), dtype=dtype, name="pooled_text")(pooled)
            embedding = embedding + pooled[:, None]
        return embedding

    def _blocks(self, x: Tokens, keep: Masks, *conditions: Any) -> Tokens:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        shapes, rope_heads, x = cfg.block_shapes, cfg.block_rope_heads, constrain_to_sequence(x)
        if cfg.scan:
            scanned = nn.scan(
                checkpointed(_ScanBlock, cfg.remat, scanned=True),
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True},
                in_axes=(*(nn.broadcast,) * len(conditions), 0),
                length=len(shapes),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            blocks = scanned(shapes[0], cfg.head_dim, dtype, cfg.norms, rope_heads[0], name="blocks")
            return blocks(x, *conditions, keep)[0]
        block = checkpointed(DitBlock, cfg.remat)
        for i, (shape, heads) in enumerate(zip(shapes, rope_heads, strict=True)):
            made = block(shape, cfg.head_dim, dtype, cfg.norms, heads, name=f"block_{i}")
            x = made(x, *conditions, keep.of_block(i, shape))
        return x


def grid_rope(config: DitConfig, grid: tuple[int, int, int]) -> RopeTable:
    """The angles of a grid's places: one table for all heads, or with `rope_scale` one for each head of the width."""
    if not config.rope_scale:
        return rope_table(grid, config.head_dim, config.rope_theta)
    heads = config.width // config.head_dim
    return fraction_rope_table(grid, config.rope_scale, heads, config.head_dim, config.rope_theta)


class _TextProjection(nn.Module):
    """Two layers that bring text states to the transformer's width."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, text: TextStates) -> Float[Array, "b s d"]:
        hidden = Dense(self.width, (None, "embed"), dtype=self.dtype, name="in")(text)
        return Dense(self.width, ("embed", None), dtype=self.dtype, name="out")(nn.gelu(hidden, approximate=True))


class _Output(nn.Module):
    """The modulated last layer, zero at the start; its result is float32."""

    channels: int
    config: DitConfig

    @nn.compact
    def __call__(self, x: Tokens, embedding: Float[Array, "b f d"]) -> Float[Array, "b n c"]:
        shift, scale = modulation_table(self, jnp.stack([embedding, embedding], axis=2))
        normalize = layer_normalize if self.config.final_layer_norm else rms_normalize
        x = modulate(normalize(x, self.config.norm_eps), shift, scale)
        return Dense(self.channels, ("embed", None), zeros, name="velocity")(x.astype(jnp.float32))
