"""The sizes of LTX-Video's VAE."""

import dataclasses
import math
from typing import Literal

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import PositiveShare, Share, Size, SizeOrZero
from mobile_video_jax.nn.config import Dtype

Step = Literal["none", "conv", "spatial", "temporal", "spatiotemporal"]

# Sides of the pixel blocks that the input is cut into before the first level.
PATCH = 4
# The strides in time and space of each way of leaving a level of the encoder. A `conv` has strides itself, the last
# three convolve and then move pixels into channels.
STEPS: dict[Step, tuple[int, int]] = {
    "none": (1, 1),
    "conv": (2, 2),
    "spatial": (1, 2),
    "temporal": (2, 1),
    "spatiotemporal": (2, 2),
}


@dataclasses.dataclass(frozen=True)
class UpLevel:
    """One resolution of the decoder: its width and depth, and how it is entered."""

    width: int
    depth: int
    up: bool
    factor: int
    residual: bool
    noise: bool


@dataclasses.dataclass(frozen=True)
class LtxVaeConfig(Config):
    """Sizes of LTX-Video's encoder and decoder (arXiv 2501.00103), listed from high resolution to low.

    Level i of the encoder is left by `encoder_steps[i]` for the next width; behind the last step come the last depth
    and width. The decoder begins with the last depth at the last width. The defaults are those of release 0.9, those of
    `timestep_conditioning`'s two numbers those of the later releases' own configs.
    """

    channels: Size = 128  # latent channels
    encoder_widths: tuple[Size, ...] = (128, 256, 512, 512, 512)  # channels of each level of the encoder
    encoder_depths: tuple[SizeOrZero, ...] = (4, 3, 3, 3, 4)  # residual blocks of each level of the encoder
    encoder_steps: tuple[Step, ...] = ("conv", "conv", "conv", "none")  # ways of leaving each level of the encoder
    decoder_widths: tuple[Size, ...] = (128, 256, 512, 512)  # channels of each level of the decoder
    decoder_depths: tuple[SizeOrZero, ...] = (4, 3, 3, 3, 4)  # residual blocks of each level of the decoder
    decoder_causal: bool = False  # the decoder's convolutions look at no later frame
    up: tuple[bool, ...] = (True, True, True, False)  # whether a level moves channels into 2x2x2 pixels
    up_factor: tuple[Size, ...] = (1, 1, 1, 1)  # how many times fewer channels a level's step leaves
    up_residual: tuple[bool, ...] = (False, False, False, False)  # whether the moved pixels are added to the step's
    noise: tuple[bool, ...] = (
        False,
        False,
        False,
        False,
        False,
    )  # whether a level adds noise; last, what precedes them
    timestep_conditioning: bool = False  # the decoder is given slightly noisy latents and a time
    decode_timestep: Share = 0.05  # time that such a decoder is told
    decode_noise_scale: Share = 0.025  # share of noise in such a decoder's latents
    norm_epsilon: PositiveShare = 1e-6  # added to the variance of LayerNorm
    dtype: Dtype = "float32"  # of convolutions and activations
    family: Literal["ltx"] = "ltx"  # tells runs of this network from those of vae/model.py

    @property
    def strides(self) -> Compression:
        """How far a clip shrinks."""
        time, space = (math.prod(sizes) for sizes in zip(*(STEPS[step] for step in self.encoder_steps), strict=True))
        return Compression(time, PATCH * space, self.channels)

    @property
    def decoder_streams(self) -> bool:
        """Whether the decoder can take a clip chunk by chunk: it is causal, and no noise is drawn over the frames."""
        return self.decoder_causal and not (self.timestep_conditioning and self.decode_noise_scale)

    def up_levels(self) -> list[UpLevel]:
        """The levels of the decoder in the order in which they run."""
        depths, noise = self.decoder_depths[:-1], self.noise[:-1]
        widths = [width // factor for width, factor in zip(self.decoder_widths, self.up_factor, strict=True)]
        rows = zip(widths, depths, self.up, self.up_factor, self.up_residual, noise, strict=True)
        return [UpLevel(*row) for row in reversed(list(rows))]
