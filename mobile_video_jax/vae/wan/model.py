"""Wan's VAE (arXiv 2503.20314), of 2.1 and of 2.2 TI2V, as diffusers' AutoencoderKLWan computes it."""

import flax.linen as nn
import jax.numpy as jnp

from mobile_video_jax.core.arrays import ImageFeatures, Latents, Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.clip_ops import Clip, Resized
from mobile_video_jax.nn.stream import continues
from mobile_video_jax.vae.posterior import Posterior
from mobile_video_jax.vae.wan.config import WanVaeConfig
from mobile_video_jax.vae.wan.layers import (
    AttentionBlock,
    Downsample,
    Norm,
    ResBlock,
    Upsample,
    WanConv,
    averaged,
    duplicated,
)


class Encoder(nn.Module):
    """Maps clips in [-1, 1] to the posterior of their packed latents."""

    config: WanVaeConfig

    @nn.compact
    def __call__(self, video: Video) -> Posterior:
        cfg, dtype, starts = self.config, jnp.dtype(self.config.dtype), not continues(self)
        widths, patch = cfg.encoder_widths(), cfg.pixel_patch
        x = WanConv(cfg.encoder_width, dtype=dtype, name="conv_in")(_packed(video, patch, channels_first=True))
        for i, width in enumerate(widths):
            before, last = x, i == len(widths) - 1
            for j in range(cfg.depth):
                x = ResBlock(width, dtype, name=f"down_{i}_block_{j}")(x)
            if not last:
                x = Downsample(cfg.halves_time[i], dtype, name=f"down_{i}_downsample")(x, starts)
            if cfg.residual:
                time = 2 if not last and cfg.halves_time[i] else 1
                x = x + averaged(before, width, time, 1 if last else 2, starts)
        x = _middle(x, dtype)
        x = WanConv(2 * cfg.channels, dtype=dtype, name="conv_out")(nn.silu(Norm(name="norm_out")(x)))
        moments = WanConv(2 * cfg.channels, (1, 1, 1), dtype, name="quant")(x).astype(jnp.float32)
        mean, log_variance = (_packed(part, cfg.token_patch) for part in jnp.split(moments, 2, axis=-1))
        return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))


class Decoder(nn.Module):
    """Maps packed latents to clips in [-1, 1]."""

    config: WanVaeConfig

    @nn.compact
    def __call__(self, latents: Latents) -> Video:
        cfg, dtype, starts = self.config, jnp.dtype(self.config.dtype), not continues(self)
        widths, halves_time = cfg.decoder_widths(), cfg.halves_time[::-1]
        x = WanConv(cfg.channels, (1, 1, 1), dtype, name="post_quant")(_unpacked(latents, cfg.token_patch))
        x = _middle(WanConv(widths[0], dtype=dtype, name="conv_in")(x), dtype)
        for i, width in enumerate(widths):
            before, last = x, i == len(widths) - 1
            for j in range(cfg.depth + 1):
                x = ResBlock(width, dtype, name=f"up_{i}_block_{j}")(x)
            if last:
                break
            features = width if cfg.residual else width // 2
            x = Upsample(features, halves_time[i], dtype, name=f"up_{i}_upsample")(x, starts)
            if cfg.residual:
                x = x + duplicated(before, width, 2 if halves_time[i] else 1, 2, starts)
        x = WanConv(3 * cfg.pixel_patch**2, dtype=dtype, name="conv_out")(nn.silu(Norm(name="norm_out")(x)))
        return jnp.clip(_unpacked(x.astype(jnp.float32), cfg.pixel_patch, channels_first=True), -1.0, 1.0)


class WanVae(nn.Module):
    """Wan's autoencoder with the methods of vae.model.Vae: `encode` to a posterior, `decode` back to pixels."""

    config: WanVaeConfig

    def setup(self) -> None:
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(self, video: Video) -> Posterior:
        """Posterior of clips [b t h w 3] in [-1, 1]; latent frame j depends on frames up to time_stride * j only."""
        return self.encoder(video)

    def decode(self, latents: Latents, image: ImageFeatures | None = None) -> Video:
        """Clips of unnormalised latents, whole or chunk by chunk. Raises UserError for an image."""
        if image is not None:
            raise UserError("Wan's decoder takes no features of a first frame: decode without an image")
        return self.decoder(latents)

    def __call__(self, video: Video) -> Video:
        return self.decoder(self.encoder(video).mean)


def _middle(x: Clip, dtype: jnp.dtype) -> Clip:
    """The blocks at the lowest resolution, inside the module that calls it."""
    x = ResBlock(x.shape[-1], dtype, name="mid_block_0")(x)
    x = AttentionBlock(dtype, name="mid_attention")(x)
    return ResBlock(x.shape[-1], dtype, name="mid_block_1")(x)


def _packed(x: Clip, side: int, *, channels_first: bool = False) -> Resized:
    """Squares of side x side positions as one, channels ordered (row, column, channel) or (channel, column, row)."""
    b, t, h, w, c = x.shape
    x = x.reshape(b, t, h // side, side, w // side, side, c)
    x = x.transpose(0, 1, 2, 4, 6, 5, 3) if channels_first else x.transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, t, h // side, w // side, -1)


def _unpacked(x: Clip, side: int, *, channels_first: bool = False) -> Resized:
    """Inverse of _packed."""
    b, t, h, w, c = x.shape
    if channels_first:
        x = x.reshape(b, t, h, w, c // side**2, side, side).transpose(0, 1, 2, 6, 3, 5, 4)
    else:
        x = x.reshape(b, t, h, w, side, side, c // side**2).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, t, h * side, w * side, -1)
