"""The compact text-to-image U-Net, run on each latent frame of a clip, with layers over time in between."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates
from mobile_video_jax.nn.clip_ops import Clip, Resized
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.embeddings import time_features
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.unet.block import Conditions, FrameConv, ResidualBlock, Site, Widened
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.temporal import TemporalLayers


class Unet(nn.Module):
    """Predicts the velocity of noisy latents x_t at time t in [0, 1], given per-token text states.

    An image is a clip of one frame. Frames are independent but for the config's layers over time, which images skip
    and in which padded frames, where `latent_mask` is False, do not influence others; fresh ones change nothing. Frames
    may each have a time of their own. A fresh model predicts 0. Raises UserError for latents whose rows or columns
    cannot be halved from level to level.
    """

    config: UnetConfig

    @nn.compact
    def __call__(
        self,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        latent_mask: LatentMask | None = None,
    ) -> Latents:
        x, skips, conditions = self.way_down(x_t, t, text, text_mask, latent_mask)
        x = self._middle(x, conditions)
        x = self._up(x, skips, conditions)
        x = nn.silu(RMSNorm(axis=None, name="norm_out")(x.astype(jnp.float32)))
        velocity: Latents = FrameConv(x_t.shape[-1], False, zeros, name="conv_out")(x)
        return velocity

    def way_down(
        self, x_t: Latents, t: FrameTimes, text: TextStates, text_mask: TextMask, latent_mask: LatentMask | None
    ) -> tuple[Resized, list[Resized], Conditions]:
        """The lowest level's features, those that the way up is concatenated with, and the conditions of all blocks."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        _, frames, height, width, _ = x_t.shape
        cfg.check_grid((frames, height, width))
        embedding = self._embedding(t.reshape(x_t.shape[0], -1), text, text_mask)
        frame_mask = None if latent_mask is None else latent_mask[:, :, 0, 0]
        conditions = Conditions(embedding, text.astype(dtype), text_mask, frame_mask)
        x = FrameConv(cfg.widths[0], False, dtype=dtype, name="conv_in")(x_t)
        return *self._down(x, conditions), conditions

    def _embedding(self, t: Float[Array, "b f"], text: TextStates, mask: TextMask) -> Float[Array, "b f d"]:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        features = time_features(t.reshape(-1), cfg.time_features).reshape(*t.shape, -1)
        hidden = Dense(cfg.embedding_width, (None, "embed"), dtype=dtype, name="time_in")(features)
        embedding = Dense(cfg.embedding_width, ("embed", None), dtype=dtype, name="time_out")(nn.silu(hidden))
        weights = mask.astype(dtype)[..., None]
        pooled = jnp.sum(text.astype(dtype) * weights, axis=1) / jnp.sum(weights, axis=1)
        return embedding + Dense(cfg.embedding_width, (None, "embed"), dtype=dtype, name="pooled_text")(pooled)[:, None]

    def _down(self, x: Clip, conditions: Conditions) -> tuple[Resized, list[Resized]]:
        """The lowest level's features, and those that the way up is concatenated with."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        skips = [x]
        for i, width in enumerate(cfg.widths):
            for j in range(cfg.residuals[i]):
                x = self._place(f"down_{i}_{j}", i, x, conditions)
                skips.append(x)
            if i + 1 < len(cfg.widths):
                x = FrameConv(width, cfg.separable, stride=2, dtype=dtype, name=f"downsample_{i}")(x)
                skips.append(x)
        return x, skips

    def _middle(self, x: Clip, conditions: Conditions) -> Clip:
        cfg = self.config
        x = self._place("middle", len(cfg.widths) - 1, x, conditions)
        residual = checkpointed(ResidualBlock, cfg.remat)(cfg.widths[-1], cfg, name="middle_out")
        y: Clip = residual(x, conditions.embedding)
        return y

    def _up(self, x: Clip, skips: list[Resized], conditions: Conditions) -> Resized:
        """The highest level's features; those of each level are sown, for distillation."""
        cfg, dtype, skips = self.config, jnp.dtype(self.config.dtype), [*skips]
        for i, width in reversed([*enumerate(cfg.widths)]):
            for j in range(cfg.residuals[i] + 1):
                x = self._place(f"up_{i}_{j}", i, jnp.concatenate([x, skips.pop()], axis=-1), conditions)
            self.sow("intermediates", f"level_{i}", x)
            if i:
                x = x.repeat(2, axis=2).repeat(2, axis=3)  # the nearest position
                x = FrameConv(width, cfg.separable, dtype=dtype, name=f"upsample_{i}")(x)
        return x

    def _place(self, name: str, level: int, x: Clip, conditions: Conditions) -> Widened:
        return self._over_time(name, level, Site(level, self.config, name=name)(x, conditions), conditions)

    def _over_time(self, place: str, level: int, x: Clip, conditions: Conditions) -> Clip:
        if place not in self.config.temporal_layers:
            return x
        kind, _ = self.config.temporal_layers[place]
        y: Clip = TemporalLayers(kind, level, self.config, name=f"temporal_{place}")(x, conditions.frame_mask)
        return y
