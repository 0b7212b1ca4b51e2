"""The adversarial loss of the VAE: a discriminator of patches and the hinge losses of both sides."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Scalar, Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.clip_ops import shuffle_down
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.dense import Dense
from mobile_video_jax.nn.norm import RMSNorm

Logits = Float[Array, "b t rows columns"]


class PatchDiscriminator(nn.Module):
    """Clips in [-1, 1] to one logit a patch and frame: positive for real, negative for decoded ones.

    PatchGAN (arXiv 1611.07004) over clips. Each width halves rows and columns; convolutions are causal in time.
    Raises UserError when the sides do not divide by 2^len(widths).
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
            # These two take the place of PatchGAN's strided convolution.
            x = Dense(features, (None, None), dtype=self.dtype, name=f"down_{i}")(shuffle_down(x, 1, 2))
            x = Conv(features, True, dtype=self.dtype, name=f"conv_{i}")(x)
            x = RMSNorm(axis=None, dtype=self.dtype, name=f"norm_{i}")(x) if i else x
            x = nn.leaky_relu(x, 0.2)
        return Conv(1, True, name="logits")(x)[..., 0]


def hinge_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """mean(relu(1 - real)) + mean(relu(1 + fake)), Geometric GAN (arXiv 1705.02894)."""
    return jnp.mean(nn.relu(1.0 - real_logits)) + jnp.mean(nn.relu(1.0 + fake_logits))


def hinge_generator_loss(fake_logits: Logits) -> Scalar:
    """-mean(fake), Geometric GAN (arXiv 1705.02894)."""
    return -jnp.mean(fake_logits)
