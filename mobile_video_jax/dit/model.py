"""The text-to-video diffusion transformer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates, Tokens
from mobile_video_jax.dit.block import Conditions, DitBlock, at_full_resolution, modulate, modulation_table
from mobile_video_jax.dit.config import BlockShape, DitConfig, Norms
from mobile_video_jax.dit.groups import Group, stages
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.resolution import Downsampling, Upsampling
from mobile_video_jax.nn.attention.config import Chunks, Grid
from mobile_video_jax.nn.attention.layer import CROSS_LOGITS
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.embeddings import RopeTable, fraction_rope_table, rope_table, time_features
from mobile_video_jax.nn.norm import layer_normalize, rms_normalize
from mobile_video_jax.nn.stream import STREAM, frames_before
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.parallel.rules import constrain_to_sequence

ERRORS = "errors"  # the variables of dit/features.py that are one number a clip, in place of features


class BackboneOutput(NamedTuple):
    """The residual stream after a transformer's blocks, and what the layers behind them are conditioned on."""

    x: Tokens
    conditions: Conditions
    embedding: Float[Array, "b f d"]  # of the time, one per clip (f = 1) or latent frame, and of the pooled text


class Dit(nn.Module):
    """Predicts the velocity of noisy latents x_t at time t in [0, 1], given per-token text states.

    Every latent position is one token (patch 1); position enters through 3-D RoPE alone. A fresh model predicts 0.
    Latent frames may each have a time of their own: conditioning frames have time 0. Positions where `latent_mask` is
    False are padding and do not influence the others. `masks` switches off blocks, heads and FFN channels.
    """

    config: DitConfig

    @nn.compact
    def __call__(
        self,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        latent_mask: LatentMask | None = None,
        masks: Masks = ALL,
    ) -> Latents:
        x, _, embedding = self.backbone(x_t, t, text, text_mask, latent_mask, masks)
        velocity: Tokens = _Output(x_t.shape[-1], self.config, name="output")(x, embedding)
        return velocity.reshape(x_t.shape)

    def backbone(
        self,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        latent_mask: LatentMask | None,
        masks: Masks,
    ) -> BackboneOutput:
        """All layers but the output layer."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        b, lt, lh, lw, channels = x_t.shape
        first = frames_before(self, lt)
        if isinstance(first, int):  # the call starts a clip
            cfg.check_grid((lt, lh, lw))
        text = _TextProjection(cfg.width, dtype, name="text_projection")(text)
        embedding = self._time_embedding(t.reshape(b, -1), text, text_mask)
        modulation = Dense(6 * cfg.width, ("embed", None), zeros, dtype=dtype, name="modulation")(nn.silu(embedding))
        x = Dense(cfg.width, (None, "embed"), dtype=dtype, name="patch_in")(x_t.reshape(b, -1, channels))
        conditions = Conditions(
            modulation=modulation.reshape(b, -1, 6, cfg.width),
            text=text,
            text_mask=jnp.ones_like(text_mask) if cfg.attend_text_padding else text_mask,
            rope=grid_rope(cfg, (lt, lh, lw), first),
            token_mask=None if latent_mask is None else latent_mask.reshape(b, -1),
        )
        return BackboneOutput(self._blocks(x, conditions, masks, (lt, lh, lw)), conditions, embedding)

    def _time_embedding(self, t: Float[Array, "b f"], text: TextStates, mask: TextMask) -> Float[Array, "b f d"]:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        features = time_features(t.reshape(-1), cfg.time_features).reshape(*t.shape, -1)
        hidden = Dense(cfg.width, (None, "embed"), dtype=dtype, name="time_in")(features)
        embedding: Float[Array, "b f d"]
        embedding = Dense(cfg.width, ("embed", None), dtype=dtype, name="time_out")(nn.silu(hidden))
        if cfg.pooled_text:
            weights = mask.astype(dtype)[..., None]
            pooled = jnp.sum(text * weights, axis=1) / jnp.sum(weights, axis=1)
            pooled = Dense(cfg.width, ("embed", None), dtype=dtype, name="pooled_text")(pooled)
            embedding = embedding + pooled[:, None]
        return embedding

    def _blocks(self, x: Tokens, conditions: Conditions, masks: Masks, grid: Grid) -> Tokens:
        x, kept = constrain_to_sequence(x), dict[int, jax.Array]()
        for stage in stages(self.config):
            size, first = stage[0].shape.resolution, stage[0].first
            if size == 1:
                x = self._stage(stage, x, conditions, masks, grid, kept)
                continue
            width, dtype = self.config.width, jnp.dtype(self.config.dtype)
            low = Downsampling(grid, size, dtype, name=f"down_{first}")(x, conditions)
            inner = (grid[0], grid[1] // size, grid[2] // size)
            y = self._stage(stage, low.x, low.conditions, masks, inner, kept)
            x = at_full_resolution(y, low.conditions.detail, inner)
            x = x + Upsampling(grid, size, width, dtype, name=f"up_{first}")(y - low.x)
        return x

    def _stage(
        self,
        groups: Sequence[Group],
        x: Tokens,
        conditions: Conditions,
        masks: Masks,
        grid: Grid,
        kept: dict[int, jax.Array],
    ) -> Tokens:
        """Blocks of one resolution, scanned in groups of equal ones if the config says so.

        `kept` are outputs of blocks that skips start at, by their numbers; this adds its own.
        """
        cfg, sources = self.config, self.config.skip_sources
        for group in groups:
            sizes, numbers = self._block_sizes(group, grid), range(group.first, group.stop)
            starts = [i for i in numbers if i in sources.values()]
            if cfg.scan:
                scanned = nn.scan(
                    checkpointed(_ScanBlock, cfg.remat, scanned=True),
                    variable_axes={"params": 0, "intermediates": 0, ERRORS: 0, CROSS_LOGITS: 0, STREAM: 0},
                    split_rngs={"params": True},
                    in_axes=(nn.broadcast, 0, 0),
                    length=group.length,
                    metadata_params={nn.PARTITION_NAME: "layers"},
                    check_constancy_invariants=False,  # would trace the block twice
                )
                group_masks = masks.of_group(group.first, group.stop, group.shape)
                skipped = jnp.stack([kept[sources[i]] for i in numbers]) if group.shape.skip else None
                blocks = scanned(**sizes, is_kept=bool(starts), name=group.name)
                x, outputs = blocks(x, conditions, group_masks, skipped)
                kept |= {i: outputs[i - group.first] for i in starts}
                continue
            block = checkpointed(DitBlock, cfg.remat)
            for i in numbers:
                skipped = kept[sources[i]] if group.shape.skip else None
                x = block(**sizes, name=f"block_{i}")(x, conditions, masks.of_block(i, group.shape), skipped)
                if i in starts:
                    kept[i] = x
        return x

    def _block_sizes(self, group: Group, grid: Grid) -> dict[str, Any]:
        """The fields of a block of a group."""
        cfg = self.config
        return {
            "shape": group.shape,
            "head_dim": cfg.head_dim,
            "dtype": jnp.dtype(cfg.dtype),
            "norms": cfg.norms,
            "rope_heads": group.rope_heads,
            "grid": grid,
            "chunks": cfg.chunks,
        }


def grid_rope(config: DitConfig, grid: Grid, first: Int[Array, ""] | int = 0) -> RopeTable:
    """RoPE table of a (t, h, w) grid: shared by all heads, or with `rope_scale` one for each head of the full width.

    `first` is the position of the first frame, 0 with `rope_scale`.
    """
    if not config.rope_scale:
        return rope_table(grid, config.head_dim, config.rope_theta, first=first)
    heads = config.width // config.head_dim
    return fraction_rope_table(
        grid, config.rope_scale, heads, config.head_dim, config.rope_theta, offset=config.rope_offset
    )


class _ScanBlock(nn.Module):
    """A DitBlock in the (carry, output) form that nn.scan requires; the output is kept for skips, or empty."""

    shape: BlockShape
    head_dim: int
    dtype: Any
    norms: Norms
    rope_heads: tuple[int, ...]
    grid: Grid
    chunks: Chunks
    is_kept: bool

    @nn.compact
    def __call__(
        self, x: Tokens, conditions: Conditions, masks: Masks, skipped: Tokens | None
    ) -> tuple[Tokens, Tokens | None]:
        block = DitBlock(
            shape=self.shape,
            head_dim=self.head_dim,
            dtype=self.dtype,
            norms=self.norms,
            rope_heads=self.rope_heads,
            grid=self.grid,
            chunks=self.chunks,
            name="block",
        )
        x = block(x, conditions, masks, skipped)
        return x, x if self.is_kept else None


class _TextProjection(nn.Module):
    """Two layers that map text states to the transformer's width."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, text: TextStates) -> Float[Array, "b s d"]:
        hidden = Dense(self.width, (None, "embed"), dtype=self.dtype, name="in")(text)
        return Dense(self.width, ("embed", None), dtype=self.dtype, name="out")(nn.gelu(hidden, approximate=True))


class _Output(nn.Module):
    """The modulated output layer, zero at the start; its result is float32."""

    channels: int
    config: DitConfig

    @nn.compact
    def __call__(self, x: Tokens, embedding: Float[Array, "b f d"]) -> Float[Array, "b n c"]:
        shift, scale = modulation_table(self, jnp.stack([embedding, embedding], axis=2))
        normalize = layer_normalize if self.config.final_layer_norm else rms_normalize
        x = modulate(normalize(x, self.config.norm_eps), shift, scale)
        return Dense(self.channels, ("embed", None), zeros, name="velocity")(x.astype(jnp.float32))
