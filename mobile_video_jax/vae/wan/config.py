"""Sizes of Wan's VAE."""

import dataclasses
from typing import Literal

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import Size
from mobile_video_jax.nn.config import Dtype


@dataclasses.dataclass(frozen=True)
class WanVaeConfig(Config):
    """Sizes of the VAE of Wan 2.1 (arXiv 2503.20314), the default, and of Wan 2.2 TI2V, listed from high resolution.

    Latents leave it packed: `token_patch` rows and columns of latent positions are one position with the channels of
    all, ordered (row, column, channel), which is one token of the transformer.
    """

    channels: Size = 16  # latent channels before packing
    encoder_width: Size = 96  # channels of the encoder's first level
    decoder_width: Size = 96  # channels of the decoder's last level
    multipliers: tuple[Size, ...] = (1, 2, 4, 4)  # channels of each level over those of the first
    depth: Size = 2  # residual blocks of a level of the encoder; the decoder's have one more
    halves_time: tuple[bool, ...] = (False, True, True)  # whether the step after a level halves the frame rate too
    residual: bool = False  # averages and copies around each level (Wan 2.2)
    pixel_patch: Size = 1  # side in pixels of the input's patches (Wan 2.2: 2)
    token_patch: Size = 2  # side in latent positions of a packed position
    dtype: Dtype = "float32"  # of convolutions and activations
    family: Literal["wan"] = "wan"  # tells runs of this network from those of vae/model.py

    @property
    def strides(self) -> Compression:
        """Strides in time and space of packed latents, and their channels."""
        space = self.pixel_patch * 2 ** len(self.halves_time) * self.token_patch
        return Compression(2 ** sum(self.halves_time), space, self.channels * self.token_patch**2)

    @property
    def decoder_streams(self) -> bool:
        """True: the decoder is causal in time."""
        return True

    def encoder_widths(self) -> list[int]:
        """Channels of each level of the encoder."""
        return [self.encoder_width * multiplier for multiplier in self.multipliers]

    def decoder_widths(self) -> list[int]:
        """Channels of each level of the decoder, from low resolution on."""
        return [self.decoder_width * multiplier for multiplier in reversed(self.multipliers)]


# The published ones: of Wan 2.1 and 2.2 A14B, and of Wan 2.2 TI2V.
PUBLISHED = (
    WanVaeConfig(),
    WanVaeConfig(channels=48, encoder_width=160, decoder_width=256, residual=True, pixel_patch=2),
)
