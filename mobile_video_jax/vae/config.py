"""The VAE's sizes."""

import dataclasses
import math

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Level:
    """One resolution of the network: its width and depth, and the step down to the next one (None at the last)."""

    width: int
    depth: int
    temporal: bool
    step: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Sizes of the encoder and decoder, listed from high resolution to low.

    Each step between two levels halves rows and columns; the last log2(time stride) of them halve time as well.
    Levels above the first step in time work frame by frame (2-D), those below are causal in time (3-D): H3AE,
    arXiv 2504.10567. What the steps leave of the space stride is taken by a pixel-unshuffle of the input. An `omni`
    decoder can also be given the features of the first frame.
    """

    compression: str = "t4_s8_c16"
    encoder_widths: tuple[int, ...] = (32, 64, 96)
    encoder_depths: tuple[int, ...] = (1, 1, 1)
    decoder_widths: tuple[int, ...] = (32, 64, 96)
    decoder_depths: tuple[int, ...] = (1, 1, 1)
    attention_blocks: int = 1
    attention_window: int = 3
    head_dim: int = 32
    rope_theta: float = 100.0
    omni: bool = False
    remat: str = "none"
    dtype: str = "float32"

    @property
    def strides(self) -> Compression:
        """The parsed compression."""
        return Compression.parse(self.compression)

    @property
    def patch(self) -> int:
        """Side of the pixel blocks that the input is cut into before the first level."""
        return self.strides.space >> (len(self.encoder_widths) - 1)

    def levels(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> list[Level]:
        """The plan of one network. Raises UserError where the lists do not fit the compression."""
        steps = len(widths) - 1
        steps_in_time = int(math.log2(self.strides.time))
        if len(depths) != len(widths) or len(self.encoder_widths) != len(self.decoder_widths):
            raise UserError("the VAE's widths and depths must name the same number of levels, in both halves")
        if not steps_in_time <= steps <= int(math.log2(self.strides.space)):
            raise UserError(
                f"a VAE of {self.compression} takes {steps_in_time + 1} to {int(math.log2(self.strides.space)) + 1} "
                f"levels; its widths name {len(widths)}"
            )
        first_in_time = steps - steps_in_time
        return [
            Level(
                width,
                depth,
                temporal=i > first_in_time,
                step=(2 if i >= first_in_time else 1, 2) if i < steps else None,
            )
            for i, (width, depth) in enumerate(zip(widths, depths, strict=True))
        ]
