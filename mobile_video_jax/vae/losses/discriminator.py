"""The VAE's discriminator, which classifies patches of frames."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.clip_ops import shuffle_down
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.dense import Dense
from mobile_video_jax.nn.norm import RMSNorm

Logits = Float[Array, "b t rows columns"]


class PatchDiscriminator(nn.Module):
    """Maps clips in [-1, 1] to one logit per patch and frame, positive for real and negative for decoded clips.

    PatchGAN (arXiv 1611.07004) over clips. Each width halves rows and columns; convolutions are causal in time.
    Raises UserError where height or width does not divide by 2^len(widths).
    """

    widths: tuple[int, ...] = (64, 128, 256)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, video: Video) -> Logits:
        _, _, height, width, _ = video.shape
        patch = 2 ** len(self.widths)
        if height % patch or width % patch:
            raise UserError(f"frames of {height}x{width} do not divide by {patch}: give the discriminator fewer widths")
        x = video.astype(self.dtype)
        for i, features in enumerate(self.widths):
            # These two replace PatchGAN's strided convolution.
            x = Dense(features, (None, None), dtype=self.dtype, name=f"down_{i}")(shuffle_down(x, 1, 2))
            x = Conv(features, True, dtype=self.dtype, name=f"conv_{i}")(x)
            x = RMSNorm(axis=None, dtype=self.dtype, name=f"norm_{i}")(x) if i else x
            x = nn.leaky_relu(x, 0.2)
        return Conv(1, True, name="logits")(x)[..., 0]
