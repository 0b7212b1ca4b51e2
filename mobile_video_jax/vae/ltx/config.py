"""The sizes of LTX-Video's VAE."""

import dataclasses
import math

from mobile_video_jax.core.clip import Compression

# Sides of the pixel blocks that the input is cut into before the first level.
PATCH = 4
# The strides in time and space of each way of leaving a level of the encoder. A `conv` has strides itself, the last
# three convolve and then move pixels into channels.
STEPS = {"none": (1, 1), "conv": (2, 2), "spatial": (1, 2), "temporal": (2, 1), "spatiotemporal": (2, 2)}


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
class LtxVaeConfig:
    """Sizes of LTX-Video's encoder and decoder (arXiv 2501.00103), listed from high resolution to low.

    Level i of the encoder has `encoder_depths[i]` blocks of `encoder_widths[i]`, and is left by `encoder_steps[i]` for
    the next width; behind the last step come the last depth and width. The decoder begins with the last depth at the
    last width; level i then moves channels into 2x2x2 pixels where `up[i]`, by a convolution that leaves them
    `up_factor[i]` times fewer, added to the moved pixels themselves where `up_residual[i]`. `noise` lists which of the
    levels, and last what comes before them, add noise between their convolutions. A decoder with
    `timestep_conditioning` is given latents with the share `decode_noise_scale` of noise, and is told
    `decode_timestep`. The defaults are those of release 0.9, these two those of the later releases' own configs.
    `family` tells runs of this network from those of vae/model.py.
    """

    channels: int = 128
    encoder_widths: tuple[int, ...] = (128, 256, 512, 512, 512)
    encoder_depths: tuple[int, ...] = (4, 3, 3, 3, 4)
    encoder_steps: tuple[str, ...] = ("conv", "conv", "conv", "none")
    decoder_widths: tuple[int, ...] = (128, 256, 512, 512)
    decoder_depths: tuple[int, ...] = (4, 3, 3, 3, 4)
    decoder_causal: bool = False
    up: tuple[bool, ...] = (True, True, True, False)
    up_factor: tuple[int, ...] = (1, 1, 1, 1)
    up_residual: tuple[bool, ...] = (False, False, False, False)
    noise: tuple[bool, ...] = (False, False, False, False, False)
    timestep_conditioning: bool = False
    decode_timestep: float = 0.05
    decode_noise_scale: float = 0.025
    norm_epsilon: float = 1e-6
    dtype: str = "float32"
    family: str = "ltx"

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
