"""LTX-Video's VAE (arXiv 2501.00103), all published releases, as diffusers' AutoencoderKLLTXVideo computes it."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from mobile_video_jax.core.arrays import ImageFeatures, Latents, Times, Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.clip_ops import Clip
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.nn.stream import continues
from mobile_video_jax.vae.ltx.config import PATCH, STEPS, LtxVaeConfig
from mobile_video_jax.vae.ltx.layers import (
    EPS,
    Downsample,
    LtxConv,
    ResBlock,
    TimeEmbedding,
    Upsample,
    fixed_noise,
    patches_to_pixels,
    pixels_to_patches,
    shift_and_scale,
    shifts_and_scales,
)
from mobile_video_jax.vae.posterior import Posterior


class Encoder(nn.Module):
    """Maps clips in [-1, 1] to the posterior of their latents, with one variance per position."""

    config: LtxVaeConfig

    @nn.compact
    def __call__(self, video: Video) -> Posterior:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        conv = partial(LtxConv, causal=True, dtype=dtype)
        block = partial(ResBlock, causal=True, norm_epsilon=cfg.norm_epsilon, dtype=dtype)
        x = conv(cfg.encoder_widths[0], name="conv_in")(pixels_to_patches(video, PATCH))
        for i, (step, width) in enumerate(zip(cfg.encoder_steps, cfg.encoder_widths[1:], strict=True)):
            for j in range(cfg.encoder_depths[i]):
                x = block(x.shape[-1], name=f"down_{i}_block_{j}")(x)
            if step == "conv":
                x = conv(x.shape[-1], stride=2, name=f"down_{i}_downsample")(x)
            elif step != "none":
                x = Downsample(width, *STEPS[step], dtype, name=f"down_{i}_downsample")(x)
            if width != x.shape[-1]:
                x = block(width, name=f"down_{i}_conv_out")(x)
        for j in range(cfg.encoder_depths[-1]):
            x = block(x.shape[-1], name=f"mid_block_{j}")(x)
        moments = conv(cfg.channels + 1, name="conv_out")(nn.silu(rms_normalize(x, EPS))).astype(jnp.float32)
        log_variance = jnp.clip(jnp.broadcast_to(moments[..., -1:], moments[..., :-1].shape), -30.0, 20.0)
        return Posterior(moments[..., :-1], log_variance)


class Decoder(nn.Module):
    """Maps latents to clips in about [-1, 1]."""

    config: LtxVaeConfig

    @nn.compact
    def __call__(self, latents: Latents) -> Video:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        if continues(self) and not cfg.decoder_streams:
            raise UserError("LTX-Video's decoder takes a clip in one piece: leave out --chunk, save memory by --tile")
        time = None
        if cfg.timestep_conditioning:
            latents = _with_noise(latents, cfg.decode_noise_scale)
            # The published scale is trained with the rest; time_features multiplies by 1000 itself.
            scale = self.param("timestep_scale_multiplier", nn.initializers.constant(1000.0), ())
            time = jnp.reshape(cfg.decode_timestep * scale / 1000.0, (1,))
        conv = partial(LtxConv, causal=cfg.decoder_causal, dtype=dtype)
        x = conv(cfg.decoder_widths[-1], name="conv_in")(latents)
        x = self._blocks(x, time, "mid", cfg.decoder_depths[-1], cfg.noise[-1])
        for i, level in enumerate(cfg.up_levels()):
            if x.shape[-1] != level.width * level.factor:
                x = self._block(level.width, level.noise, f"up_{i}_conv_in")(x)
            if level.up:
                name = f"up_{i}_upsample"
                x = Upsample(level.factor, level.residual, cfg.decoder_causal, dtype, name=name)(x)
            x = self._blocks(x, time, f"up_{i}", level.depth, level.noise)
        x = rms_normalize(x, EPS)
        if time is not None:
            embedded = TimeEmbedding(2 * x.shape[-1], name="time")(time)[0]
            x = shift_and_scale(x, *shifts_and_scales(self, embedded, 2))
        x = conv(3 * PATCH**2, name="conv_out")(nn.silu(x)).astype(jnp.float32)
        return patches_to_pixels(x, PATCH)

    def _blocks(self, x: Clip, time: Times | None, level: str, depth: int, noise: bool) -> Clip:
        """Blocks of one level, which share an embedding of the timestep."""
        embedded = None if time is None else TimeEmbedding(4 * x.shape[-1], name=f"{level}_time")(time)[0]
        for j in range(depth):
            x = self._block(x.shape[-1], noise, f"{level}_block_{j}")(x, embedded)
        return x

    def _block(self, width: int, noise: bool, name: str) -> ResBlock:
        cfg = self.config
        return ResBlock(width, cfg.decoder_causal, noise, cfg.norm_epsilon, jnp.dtype(cfg.dtype), name=name)


class LtxVae(nn.Module):
    """LTX-Video's autoencoder with the methods of vae.model.Vae: `encode` to a posterior, `decode` back to pixels."""

    config: LtxVaeConfig

    def setup(self) -> None:
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(self, video: Video) -> Posterior:
        """Posterior of clips [b t h w 3] in [-1, 1]; latent frame j depends on frames up to time_stride * j only."""
        return self.encoder(video)

    def decode(self, latents: Latents, image: ImageFeatures | None = None) -> Video:
        """Clips of unnormalised latents, as one chunk unless the config's `decoder_streams`.

        With timestep conditioning the latents are mixed with noise, (1 - scale) latents + scale noise, as in diffusers'
        LTXPipeline. All noise is sampled from fixed keys and the shape: clips of one shape get the same noise, a tile
        another noise than its frame. Raises UserError for a second chunk where it does not stream, and for an image.
        """
        if image is not None:
            raise UserError("LTX-Video's decoder takes no features of a first frame: decode without an image")
        return self.decoder(latents)

    def __call__(self, video: Video) -> Video:
        return self.decoder(self.encoder(video).mean)


def _with_noise(latents: Latents, scale: float) -> Latents:
    return (1 - scale) * latents + scale * fixed_noise("latents", *latents.shape[1:])
