"""Video and picture files of unknown origin, opened by their content alone."""

import contextlib
import dataclasses
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from PIL import ExifTags, Image

MOVIES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".ogv"),
    *(".ogg", ".wmv", ".flv", ".3gp", ".gif", ".apng"),
)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
EXTENSIONS = (*MOVIES, *PICTURES)  # a picture is a video of one frame
# Demuxers that may read a file. Others, such as ffconcat and HLS, would open further files that the content names.
DEMUXERS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,ogg,asf,flv,gif,apng,"
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)
TILED = ("heic", "heix", "hevc", "mif1", "msf1", "avif", "avis")  # brands of pictures in tiles and with separate alpha
NOT_SHOWN = Disposition.attached_pic | Disposition.timed_thumbnails
EXIF_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
# FFmpeg's own decoders drop the alpha of WebM and take damaged VP9 for sound; libvpx is built for 8 bits.
ALPHA_DECODERS, EIGHT_BIT_DECODERS = {"vp8": "libvpx"}, {"vp9": "libvpx-vp9"}


class UnreadableVideo(ValueError):
    """The file is no video that we can decode; the message is the reason, in a few words."""


@dataclasses.dataclass(frozen=True)
class OpenVideo:
    """An open file: its container, the stream that a player would show, and that stream's decoder.

    `exif` is the orientation tag of a picture, 1 to 8; None for a movie.
    """

    container: InputContainer
    stream: VideoStream
    decoder: VideoCodecContext
    exif: int | None

    @property
    def aspect(self) -> float:
        """A pixel's width over its height. Viewers ignore that of pictures and animations."""
        animation = self.container.format.name in ("gif", "apng")
        return 1.0 if animation or self.exif else float(self.stream.sample_aspect_ratio or 1)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decoded frames in the order they are shown, from the beginning or from where `seek` led."""
        for _, frames in self.packets():
            yield from frames

    def packets(self) -> Iterator[tuple["av.Packet[VideoStream] | None", list[av.VideoFrame]]]:
        """Packets in the order they are stored, None after the last, each with the frames that it completes.

        A picture is its first packet: others may follow, such as previews, and so may what is none.
        """
        for packet in self.container.demux(self.stream):
            if packet.size:
                yield packet, self.decoder.decode(packet)
                if self.exif:
                    break
        yield None, self.decoder.decode(None)

    def seek(self, time: int) -> None:
        """Moves to a key frame near `time`, in the stream's unit; not always at or before it."""
        self.container.seek(time, stream=self.stream)
        self.decoder.flush_buffers()


@contextlib.contextmanager
def opened(source: bytes | Path) -> Iterator[OpenVideo]:
    """Opens a video or picture. Whatever FFmpeg dislikes until the end of the block becomes UnreadableVideo."""
    with _unnamed(source) as file:
        try:
            with _opened(file) as container:
                stream = _shown(container)
                exif = _exif_orientation(source) if container.format.name.endswith("_pipe") else None
                yield OpenVideo(container, stream, _decoder(stream, strict=exif is not None), exif)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"it does not decode: {error.strerror}") from error


def _opened(file: io.BufferedIOBase) -> InputContainer:
    try:
        # Titles in other encodings than UTF-8 are no reason to refuse a video.
        return av.open(file, "r", options={"format_whitelist": DEMUXERS}, metadata_errors="replace")
    except av.ArgumentError as error:
        raise UnreadableVideo("it does not decode: it is of no kind that is read here") from error


def _unnamed(source: bytes | Path) -> io.BufferedIOBase:
    """The file without its name, by which FFmpeg would choose another demuxer."""
    return io.BytesIO(source) if isinstance(source, bytes) else open(os.open(source, os.O_RDONLY), "rb")


def _shown(container: InputContainer) -> VideoStream:
    """The stream that a player would show. Raises UnreadableVideo where there is none."""
    if container.metadata.get("major_brand") in TILED:
        raise UnreadableVideo("HEIC and AVIF pictures are not supported: convert it to JPEG or PNG")
    streams = [stream for stream in container.streams.video if not stream.disposition & NOT_SHOWN]
    if not streams:
        cover = " and a cover picture" if container.streams.video else ""
        raise UnreadableVideo(f"it holds no video, only sound{cover}")
    best = cast(VideoStream, container.streams.best("video"))
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise UnreadableVideo("its codec is unknown")
    return stream


def _decoder(stream: VideoStream, *, strict: bool) -> VideoCodecContext:
    """The stream's decoder, or another that decodes its alpha or finds damage. A strict one refuses what is damaged."""
    decoder = stream.codec_context
    if name := _better_decoder(stream):
        decoder = cast(VideoCodecContext, av.CodecContext.create(name, "r"))
        decoder.extradata = stream.codec_context.extradata
    decoder.thread_count = 1  # callers decode many files at once
    decoder.flags |= Flags.bitexact  # the same pixels on every machine
    # A JPEG that stops early would come with grey for the rest; others look at checksums that a stream may hold.
    decoder.options = {"err_detect": "explode" if strict else "crccheck"}
    return decoder


def _better_decoder(stream: VideoStream) -> str | None:
    name, pixels = stream.codec_context.name, stream.codec_context.format
    if name in EIGHT_BIT_DECODERS and pixels is not None and pixels.components[0].bits == 8:
        return EIGHT_BIT_DECODERS[name]
    return ALPHA_DECODERS.get(name) if stream.metadata.get("alpha_mode") == "1" else None


def _exif_orientation(source: bytes | Path) -> int:
    """A picture's EXIF orientation, 1 to 8. Raises UnreadableVideo for an animated WebP, which FFmpeg cannot read."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=EXIF_FORMATS) as picture:
            exif = Image.Exif()
            exif.load(picture.info.get("exif", b""))
            tag = (picture.getexif() if picture.format == "TIFF" else exif).get(ExifTags.Base.Orientation, 1)
            animated = picture.format == "WEBP" and getattr(picture, "is_animated", False)
    except Image.DecompressionBombError as error:
        raise UnreadableVideo("its picture is too large") from error
    except (OSError, SyntaxError, ValueError, struct.error):  # FFmpeg will say what is wrong
        return 1
    if animated:
        raise UnreadableVideo("animated WebP is not supported: convert it to mp4 or gif")
    return tag if tag in range(1, 9) else 1
