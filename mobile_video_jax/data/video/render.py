"""Decoded frames as they are meant to be seen: upright, in square pixels, opaque, in SDR colours."""

import dataclasses
from collections.abc import Mapping
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.video.container import OpenVideo, UnreadableVideo
from mobile_video_jax.data.video.hdr import TRANSFERS, tone_map

GROUND = 255  # the grey level (0-255) behind what is transparent: white, as a page
ACCURATE = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
UNSPECIFIED, ICTCP, IPT = 2, 14, 15  # AVColorSpace


@dataclasses.dataclass(frozen=True)
class Crop:
    """The part of a video that fills a clip: the video is scaled to cover it `zoom` times and cropped.

    `row` and `column` are the crop's position, 0 at the top or left and 1 at the bottom or right. With `native` the
    video is scaled only where it is smaller than the clip.
    """

    zoom: float = 1.0
    row: float = 0.5
    column: float = 0.5
    native: bool = False


CENTRE = Crop()


@dataclasses.dataclass(frozen=True)
class Orientation:
    """Orientation of a stored picture: rows and columns swapped first, then either order reversed."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def from_exif(cls, tag: int) -> "Orientation":
        """That of an EXIF tag, 1 to 8."""
        return cls(tag >= 5, tag in (3, 4, 7, 8), tag in (2, 3, 6, 7))

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> "Orientation":
        """That of a display matrix [3 3], which maps stored (x, y, 1) from the left to shown ones."""
        (a, b), (c, d) = matrix[:2, :2]
        if abs(a) >= abs(b):
            return cls(False, bool(d < 0), bool(a < 0))
        return cls(True, bool(b < 0), bool(c < 0))

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turns and mirrors pixels [h w c]."""
        pixels = pixels.swapaxes(0, 1) if self.transpose else pixels
        return pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


class Renderer:
    """Renders the frames of one open video."""

    def __init__(self, video: OpenVideo):
        self._aspect, self._exif = video.aspect, video.exif
        self._reformatter = VideoReformatter()

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Height and width of a frame as it is shown, in square pixels."""
        height, width = frame.height, max(round(frame.width * self._aspect), 1)
        return (width, height) if self._orientation(frame).transpose else (height, width)

    def render(self, frame: av.VideoFrame, clip: ClipShape, crop: Crop = CENTRE) -> np.ndarray:
        """A frame scaled to cover the clip and cropped: uint8 [h w 3].

        Raises UnreadableVideo for colours that are not supported.
        """
        orientation, (height, width) = self._orientation(frame), self.size(frame)
        covering = max(clip.height / height, clip.width / width)
        scale = max(covering, 1.0) if crop.native else covering * crop.zoom
        height, width = max(round(height * scale), clip.height), max(round(width * scale), clip.width)
        stored = (width, height) if orientation.transpose else (height, width)
        row, column = round((height - clip.height) * crop.row), round((width - clip.width) * crop.column)
        pixels = orientation.apply(self._scaled(_opaque(frame), stored, frame, enlarged=scale >= 1))
        pixels = pixels[row : row + clip.height, column : column + clip.width]
        return tone_map(pixels, frame.color_trc, frame.color_primaries) if pixels.dtype == np.uint16 else pixels

    def _orientation(self, frame: av.VideoFrame) -> Orientation:
        return Orientation.from_exif(self._exif) if self._exif else _matrix_orientation(frame)

    def _scaled(
        self, opaque: av.VideoFrame, size: tuple[int, int], frame: av.VideoFrame, *, enlarged: bool
    ) -> np.ndarray:
        """RGB of a given height and width: uint8, or uint16 where `frame` is HDR."""
        if frame.colorspace in (ICTCP, IPT):
            raise UnreadableVideo("colours of Dolby Vision alone (ICtCp) are not supported")
        hdr = frame.color_trc in TRANSFERS
        scaled = self._reformatter.reformat(
            opaque,
            height=size[0],
            width=size[1],
            format="rgb48le" if hdr else "rgb24",
            src_colorspace=Colorspace.BT2020 if hdr and frame.colorspace == UNSPECIFIED else None,
            interpolation=(Interpolation.BICUBIC if enlarged else Interpolation.AREA) | ACCURATE,
            threads=1,
        )
        return scaled.to_ndarray()


def _opaque(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame on GROUND where it has alpha; composited before it is scaled, so that hidden colours never show."""
    pixel_format = frame.format
    if not pixel_format.has_palette and not any(part.is_alpha for part in pixel_format.components):
        return frame
    rgba = frame.reformat(format="rgba", interpolation=Interpolation.BICUBIC | ACCURATE, threads=1).to_ndarray()
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    mixed = (colour * alpha + GROUND * (255 - alpha) + 127) // 255
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(mixed.astype(np.uint8)), format="rgb24")


def _matrix_orientation(frame: av.VideoFrame) -> Orientation:
    """The orientation of a frame's display matrix, if it has one."""
    try:
        matrix = cast(Mapping[Type, SideData], frame.side_data)[Type.DISPLAYMATRIX]
    except KeyError:
        return Orientation()
    except ValueError:  # PyAV does not list side data of kinds that it does not know; the rotation it still tells
        turns = round(frame.rotation / 90) % 4
        return Orientation(turns % 2 == 1, turns in (1, 2), turns in (2, 3))
    return Orientation.from_matrix(np.frombuffer(bytes(matrix), np.int32).reshape(3, 3))
