"""The video VAE: encoder, decoder and both together."""

import flax.linen as nn
import jax.numpy as jnp

from mobile_video_jax.core.arrays import ImageFeatures, Latents, Video
from mobile_video_jax.nn.clip_ops import Clip, Resized, shuffle_down, shuffle_up
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.nn.stream import continues
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.vae.blocks import AttentionBlock, ConvBlock
from mobile_video_jax.vae.compact import CompactDecoder
from mobile_video_jax.vae.config import OwnEncoder, VaeConfig
from mobile_video_jax.vae.ltx import model as ltx
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.posterior import Posterior
from mobile_video_jax.vae.wan import model as wan

# Log variance of a fresh posterior: small beside the mean, so that the decoder can learn from the start.
INITIAL_LOG_VARIANCE = -6.0


class Encoder(nn.Module):
    """Maps clips in [-1, 1] to the posterior of their latents and the features of their first frame."""

    config: VaeConfig

    @nn.compact
    def __call__(self, video: Video) -> tuple[Posterior, ImageFeatures]:
        cfg, dtype, starts = self.config, jnp.dtype(self.config.dtype), not continues(self)
        levels = cfg.levels(cfg.encoder_widths, cfg.encoder_depths)
        x = shuffle_down(video.astype(dtype), 1, cfg.patch)
        x = Conv(levels[0].width, False, dtype=dtype, name="stem")(x)
        conv_block, features = checkpointed(ConvBlock, cfg.remat), []
        for i, level in enumerate(levels):
            for j in range(level.depth):
                x = conv_block(level.temporal, dtype, name=f"level_{i}_block_{j}")(x)
            features.append(x[:, :1])
            if level.step:
                x = shuffle_down(x, *level.step, starts=starts)
                x = Dense(levels[i + 1].width, (None, None), dtype=dtype, name=f"down_{i}")(x)
        for j in range(cfg.attention_blocks):
            x = AttentionBlock(cfg.head_dim, cfg.attention_window, cfg.rope_theta, dtype, name=f"attention_{j}")(x)
        x = nn.silu(RMSNorm(axis=None, dtype=dtype, name="norm")(x))
        moments = Dense(2 * cfg.of_network.channels, (None, None), name="moments")(x.astype(jnp.float32))
        mean, log_variance = (shuffle_down(part, 1, cfg.strides.patch) for part in jnp.split(moments, 2, axis=-1))
        # The bounds keep exp() finite; a trained encoder stays well within them.
        return Posterior(mean, jnp.clip(log_variance + INITIAL_LOG_VARIANCE, -20.0, 10.0)), tuple(features)


class Decoder(nn.Module):
    """Maps latents, and optionally features of the first frame, to clips in about [-1, 1]."""

    config: VaeConfig

    @nn.compact
    def __call__(self, latents: Latents, image: ImageFeatures | None = None) -> Video:
        cfg, dtype, starts = self.config, jnp.dtype(self.config.dtype), not continues(self)
        levels = cfg.levels(cfg.decoder_widths, cfg.decoder_depths)
        conv_block = checkpointed(ConvBlock, cfg.remat)
        x = Dense(levels[-1].width, (None, None), dtype=dtype, name="stem")(shuffle_up(latents, 1, cfg.strides.patch))
        for j in range(cfg.attention_blocks):
            x = AttentionBlock(cfg.head_dim, cfg.attention_window, cfg.rope_theta, dtype, name=f"attention_{j}")(x)
        for i, level in reversed(list(enumerate(levels))):
            if level.step:
                x = self._up(x, level.step, level.width, starts=starts, name=f"up_{i}")
            if image is not None:
                # No bias: zero features mean no image, so that one network decodes with and without one (H3AE's omni).
                x = x + Dense(level.width, (None, None), zeros, False, dtype, name=f"image_{i}")(image[i])
            for j in range(level.depth):
                x = conv_block(level.temporal, dtype, name=f"level_{i}_block_{j}")(x)
        x = nn.silu(RMSNorm(axis=None, dtype=dtype, name="norm")(x))
        x = Conv(3 * cfg.patch**2, False, dtype=dtype, name="pixels")(x)
        return shuffle_up(x.astype(jnp.float32), 1, cfg.patch)

    def _up(self, x: Clip, step: tuple[int, int], width: int, *, starts: bool, name: str) -> Resized:
        time, space = step
        x = Dense(width * time * space**2, (None, None), dtype=x.dtype, name=name)(x)
        return shuffle_up(x, time, space, starts=starts)


class Vae(nn.Module):
    """A causal video autoencoder: `encode` to a posterior over latents, `decode` back to pixels.

    The encoder is a published one where the config names it.
    """

    config: VaeConfig

    def setup(self) -> None:
        self.encoder = _encoder(self.config)
        self.decoder = (CompactDecoder if self.config.compact_decoder else Decoder)(self.config)

    def encode(self, video: Video) -> Posterior:
        """Posterior of clips [b t h w 3] in [-1, 1]; latent frame j depends on frames up to time_stride * j only."""
        return self.encode_with_image(video)[0]

    def encode_with_image(self, video: Video) -> tuple[Posterior, ImageFeatures]:
        """The posterior, and the first frame's features for `decode`; a published encoder has none."""
        encoded = self.encoder(video)
        return encoded if isinstance(encoded, tuple) else (encoded, ())

    def decode(self, latents: Latents, image: ImageFeatures | None = None) -> Video:
        """Clips of unnormalised latents; with `image`, clips that start with the frame that has these features."""
        return self.decoder(latents, image)

    def __call__(self, video: Video) -> Video:
        posterior, image = self.encode_with_image(video)
        return self.decoder(posterior.mean, image if self.config.omni else None)


def _encoder(config: VaeConfig) -> nn.Module:
    if isinstance(config.encoder, LtxVaeConfig):
        return ltx.Encoder(config.encoder)
    return Encoder(config) if isinstance(config.encoder, OwnEncoder) else wan.Encoder(config.encoder)
