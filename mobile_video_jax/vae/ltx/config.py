"""Sizes of LTX-Video's VAE."""

import dataclasses
import math
from typing import Literal

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import PositiveShare, Share, Size, SizeOrZero
from mobile_video_jax.nn.config import Dtype

Step = Literal["none", "conv", "spatial", "temporal", "spatiotemporal"]

# Side in pixels of the input's patches, the blocks of its pixel unshuffle.
PATCH = 4
# Strides in time and space of the encoder's downsampling layers: `conv` is a strided convolution, the last three are
# a convolution with a pixel unshuffle.
STEPS: dict[Step, tuple[int, int]] = {
    "none": (1, 1),
    "conv": (2, 2),
    "spatial": (1, 2),
    "temporal": (2, 1),
    "spatiotemporal": (2, 2),
}


@dataclasses.dataclass(frozen=True)
class UpLevel:
    """One resolution of the decoder; fields are one level's entries of LtxVaeConfig's lists."""

    width: int  # channels after upsampling
    depth: int
    up: bool
    factor: int
    residual: bool
    noise: bool


@dataclasses.dataclass(frozen=True)
class LtxVaeConfig(Config):
    """Sizes of LTX-Video's encoder and decoder (arXiv 2501.00103), listed from high resolution to low.

    `encoder_steps[i]` leads from level i of the encoder to the next width; the last depth and width follow the last
    step. The decoder begins with the last depth at the last width. Defaults are those of release 0.9; decode_timestep
    and decode_noise_scale are those of later releases.
    """

    channels: Size = 128  # latent channels
    encoder_widths: tuple[Size, ...] = (128, 256, 512, 512, 512)  # channels of each level of the encoder
    encoder_depths: tuple[SizeOrZero, ...] = (4, 3, 3, 3, 4)  # residual blocks of each level of the encoder
    encoder_steps: tuple[Step, ...] = ("conv", "conv", "conv", "none")  # downsampling after each level of the encoder
    decoder_widths: tuple[Size, ...] = (128, 256, 512, 512)  # channels of each level of the decoder
    decoder_depths: tuple[SizeOrZero, ...] = (4, 3, 3, 3, 4)  # residual blocks of each level of the decoder
    decoder_causal: bool = False  # the decoder's convolutions see no later frame
    up: tuple[bool, ...] = (True, True, True, False)  # whether a level upsamples 2x2x2 (pixel shuffle)
    up_factor: tuple[Size, ...] = (1, 1, 1, 1)  # division of the channels by a level's upsampling
    up_residual: tuple[bool, ...] = (False,) * 4  # whether the shuffled input is added to it
    noise: tuple[bool, ...] = (False,) * 5  # whether a level adds noise; the last entry is the blocks before them
    timestep_conditioning: bool = False  # the decoder takes slightly noisy latents and a time
    decode_timestep: Share = 0.05  # time input of such a decoder
    decode_noise_scale: Share = 0.025  # share of noise in such a decoder's latents
    norm_epsilon: PositiveShare = 1e-6  # added to the variance of LayerNorm
    dtype: Dtype = "float32"  # of convolutions and activations
    family: Literal["ltx"] = "ltx"  # tells runs of this network from those of vae/model.py

    @property
    def strides(self) -> Compression:
        """Strides in time and space, and latent channels."""
        time, space = (math.prod(sizes) for sizes in zip(*(STEPS[step] for step in self.encoder_steps), strict=True))
        return Compression(time, PATCH * space, self.channels)

    @property
    def decoder_streams(self) -> bool:
        """True where the decoder takes a clip chunk by chunk: it is causal and adds no noise to the latents."""
        return self.decoder_causal and not (self.timestep_conditioning and self.decode_noise_scale)

    def up_levels(self) -> list[UpLevel]:
        """Levels of the decoder in the order of computation, from low resolution to high."""
        depths, noise = self.decoder_depths[:-1], self.noise[:-1]
        widths = [width // factor for width, factor in zip(self.decoder_widths, self.up_factor, strict=True)]
        rows = zip(widths, depths, self.up, self.up_factor, self.up_residual, noise, strict=True)
        return [UpLevel(*row) for row in reversed(list(rows))]
