"""Shapes of clips and of their latents: which frame counts and sizes are legal, and how many tokens they cost."""

import dataclasses
import math
import re

from mobile_video_jax.core.errors import UserError

LARGEST = 1 << 32  # pixels of a clip; one of 12.9 GB


@dataclasses.dataclass(frozen=True)
class Compression:
    """Compression of a clip to tokens: `time` and `space` strides and latent `channels`, written t8_s32_c128.

    In t4_s8_c16_p2 the VAE has the strides 4 and 8, and leaves each patch of 2x2 of its 16-channel latents packed as
    one position of 64 channels, a token of the transformer: `space` is 16 and `channels` 64.
    """

    time: int
    space: int
    channels: int
    patch: int = 1  # rows and columns of the VAE's latents in one token

    @classmethod
    def parse(cls, text: str) -> "Compression":
        """Reads "t4_s16_c16" or "t4_s8_c16_p2". Raises UserError unless strides are powers of two and space >= time."""
        match = re.fullmatch(r"t(\d+)_s(\d+)_c(\d+)(?:_p(\d+))?", text)
        if not match:
            raise UserError(
                f"compression '{text}' is not of the form t4_s16_c16 (time, space, channels), or with _p2 for patches"
            )
        time, space, channels, patch = (int(number or 1) for number in match.groups())
        for name, size in (("time stride", time), ("space stride", space), ("patch", patch)):
            if size < 1 or size & (size - 1):
                raise UserError(f"compression '{text}': the {name} {size} is not a power of two")
        if space < time:
            raise UserError(f"compression '{text}': the space stride must be at least the time stride")
        if channels < 1:
            raise UserError(f"compression '{text}' has no channels")
        return cls(time, space * patch, channels * patch**2, patch)

    def __str__(self) -> str:
        vae = self.of_vae
        return f"t{vae.time}_s{vae.space}_c{vae.channels}" + (f"_p{self.patch}" if self.patch > 1 else "")

    @property
    def of_vae(self) -> "Compression":
        """The compression of the VAE's network alone, without patches."""
        return Compression(self.time, self.space // self.patch, self.channels // self.patch**2)

    @property
    def ratio(self) -> float:
        """RGB values in one long clip for each latent value (the first frame's special place left out)."""
        return self.time * self.space**2 * 3 / self.channels


@dataclasses.dataclass(frozen=True)
class ClipShape:
    """Frames, height and width of a clip in pixels, written 49x384x512."""

    frames: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "ClipShape":
        """Reads "49x384x512". Raises UserError when it is anything else."""
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
        if not match or not all(map(int, match.groups())):
            raise UserError(f"clip '{text}' is not of the form 49x384x512 (frames, height, width)")
        shape = cls(*map(int, match.groups()))
        if math.prod((shape.frames, shape.height, shape.width)) > LARGEST:
            raise UserError(f"clip '{text}' has more than {LARGEST:,} pixels: use fewer frames, or smaller ones")
        return shape

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"

    def check(self, compression: Compression) -> "ClipShape":
        """Returns itself when the VAE can code it; raises UserError with the two nearest legal values if not.

        The first frame is coded alone and the rest in groups of the time stride: frames = time * k + 1.
        """
        time, space = compression.time, compression.space
        if (self.frames - 1) % time:
            low = (self.frames - 1) // time * time + 1
            raise UserError(
                f"{low} frames at temporal stride {time} are legal ({time}k+1); {self.frames} is not: "
                f"use {low} or {low + time}"
            )
        for name, size in (("height", self.height), ("width", self.width)):
            if size % space:
                low = size // space * space
                raise UserError(
                    f"{name} {size} does not divide by the spatial stride {space}: use "
                    + (f"{low} or {low + space}" if low else f"{space}")
                )
        return self

    def latent(self, compression: Compression) -> tuple[int, int, int]:
        """The latent grid (time, rows, columns) of this clip."""
        self.check(compression)
        time, space = compression.time, compression.space
        return (self.frames - 1) // time + 1, self.height // space, self.width // space

    def tokens(self, compression: Compression) -> int:
        """Tokens of the diffusion transformer, one for each place in the latent grid."""
        return math.prod(self.latent(compression))
