"""Ordinary files that many readers get wrong, as cameras, editors and the web leave them.

Their picture is `scene`: four colours in four corners, a disc, and the lowest eighth of the rows grey 16 + 7 i, which
tells the number i of the frame.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Colorspace
from PIL import Image

FRAMES, HEIGHT, WIDTH, RATE = 30, 96, 128, 25
# By the end of a name.
FORMATS = {
    "ts": "mpegts",
    "mpg": "mpeg",
    "mkv": "matroska",
    "wmv": "asf",
    "ogv": "ogg",
    "m4v": "ipod",
}
CORNERS = {"red": (210, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 200), "white": (200, 200, 200)}


def scene(count: int = FRAMES) -> np.ndarray:
    """uint8 [count 96 128 3]."""
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    top, bottom = slice(0, HEIGHT // 2), slice(HEIGHT // 2, HEIGHT)
    left, right = slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH)
    for colour, rows, columns in zip(CORNERS.values(), (top, top, bottom, bottom), (left, right) * 2, strict=True):
        frames[:, rows, columns] = colour
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames[:, (y - HEIGHT // 2) ** 2 + (x - WIDTH // 2) ** 2 < 16**2] = (250, 210, 30)
    frames[:, -HEIGHT // 8 :] = (16 + 7 * np.arange(count) % 240)[:, None, None, None]
    return frames


def moving(count: int) -> np.ndarray:
    """uint8 [count 96 128 3] with motion all over, so that a frame decoded without its references looks wrong."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin((x + 3 * t) / 7 + channel) + np.sin((y - 2 * t) / 5) for t in range(count) for channel in range(3)]
    frames = np.stack(waves).reshape(count, 3, HEIGHT, WIDTH).transpose(0, 2, 3, 1)
    return (127 + 60 * frames).astype(np.uint8)


def encoded(
    name: str,
    codec: str,
    frames: np.ndarray | Iterable[av.VideoFrame],
    *,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    milliseconds: Sequence[int] | None = None,
    last_duration: int | None = None,
    rate: int = RATE,
    change: Callable[[av.VideoStream], object] = lambda stream: None,
    live: bool = False,
) -> bytes:
    """Frames as a file of the kind that `name` ends in, at times `milliseconds` where they are not even.

    `change` is called with the stream before it is encoded; the last frame is on view for `last_duration` milliseconds.
    A `live` file is written by a program that cannot go back to fill in sizes.
    """
    file, suffix = _Pipe() if live else io.BytesIO(), name.rpartition(".")[2]
    pictures = list(map(_picture, frames))
    with av.open(file, "w", format=FORMATS.get(suffix, suffix), options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = pictures[0].height, pictures[0].width, pixels
        if milliseconds is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            for picture, time in zip(pictures, milliseconds, strict=True):
                picture.pts, picture.time_base = time, stream.time_base
        change(stream)
        packets = [packet for picture in [*pictures, None] for packet in stream.encode(picture)]
        if last_duration is not None:
            packets[-1].duration = last_duration
        for packet in packets:
            container.mux(packet)
    return file.getvalue()


class _Pipe(io.RawIOBase):
    """Takes bytes and cannot go back."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def getvalue(self) -> bytes:
        return bytes(self._bytes)


def _picture(frame: np.ndarray | av.VideoFrame) -> av.VideoFrame:
    if isinstance(frame, av.VideoFrame):
        return frame
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgba" if frame.shape[-1] == 4 else "rgb24")


def x264(name: str, parameters: str, frames: np.ndarray, **options: Any) -> bytes:
    return encoded(name, "libx264", frames, options={"x264-params": parameters, "crf": "12"}, **options)


def seeking_files() -> dict[str, bytes]:
    """Sound files in which seeking leads elsewhere, or decodes something else, than decoding from the start."""
    frames = moving(45)
    b_frames = {"bf": "2", "g": "10", "qscale": "2"}
    closed = "keyint=8:min-keyint=8:bframes=2:scenecut=0"
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    hevc = {"x265-params": "keyint=10:min-keyint=10:scenecut=0:log-level=none"}
    return {
        "open_gop.mp4": x264("a.mp4", f"{closed}:open-gop=1:b-adapt=0", frames),
        "hevc_open.mp4": encoded("a.mp4", "libx265", frames, options=hevc),
        "xvid.avi": encoded("a.avi", "mpeg4", frames, options=b_frames),
        "h264.avi": x264("a.avi", closed, frames),
        "fragmented.mp4": x264("a.mp4", closed, frames, muxing=fragments),
        "intra_refresh.mp4": x264("a.mp4", "intra-refresh=1:keyint=10:bframes=0", frames),
        "mpeg4.mp4": encoded("a.mp4", "mpeg4", frames, options=b_frames),
        "mpeg2.mpg": encoded("a.mpg", "mpeg2video", frames, options=b_frames),
        "mpeg2.mov": encoded("a.mov", "mpeg2video", frames, options=b_frames),
        "h264.ts": x264("a.ts", closed, frames),
        "wmv2.wmv": encoded("a.wmv", "wmv2", frames, options={"g": "10"}),
        "vp8.ogv": encoded("a.ogv", "libvpx", frames, options={"g": "10", "b": "1M"}),
        "vp9.webm": encoded("a.webm", "libvpx-vp9", frames, options={"g": "12", "cpu-used": "8"}),
        "interlaced.mp4": x264("a.mp4", f"{closed}:tff=1", frames),
    }


def mirrored(a: int, b: int, c: int, d: int) -> bytes:
    """The scene as mp4 with the display matrix a b, c d."""
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    return x264("a.mp4", "keyint=30", scene(3), change=lambda stream: stream.set_display_matrix(matrix))


def stretched(name: str, frames: np.ndarray, aspect: str) -> bytes:
    """Frames whose pixels are `aspect` as wide as high."""

    def change(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)

    return x264(name, "keyint=30", frames, change=change)


def cut_copy(film: bytes, milliseconds: int) -> bytes:
    """What is left of an mp4 from that time on, cut without encoding: an edit list hides the frames before."""
    file = io.BytesIO()
    with av.open(io.BytesIO(film)) as source, av.open(file, "w", format="mp4") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        start = round(milliseconds / 1000 / stream.time_base)
        source.seek(start, stream=stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
                target.mux(packet)
    return file.getvalue()


def two_tracks() -> bytes:
    """A mkv whose first stream is a preview of one picture; the second, of 30 frames, is the default."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        streams = [container.add_stream("libx264", rate=RATE) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        streams[1].disposition = Disposition.default
        for stream, frames in zip(streams, (scene(1)[:, ::-1], scene()), strict=True):
            for picture in [*map(_picture, frames), None]:
                container.mux(stream.encode(picture))
    return file.getvalue()


def song(cover: bool) -> bytes:
    """Sound in mp4, with a cover picture or without."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(_picture(scene(1)[0])))
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return file.getvalue()


def pillow(frames: np.ndarray, kind: str, mode: str = "", **options: Any) -> bytes:
    """Frames as Pillow writes them; several make an animation."""
    first, *rest = [Image.fromarray(frame).convert(mode) if mode else Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    if rest:
        options |= {"save_all": True, "append_images": rest}
    first.save(file, kind, **options)
    return file.getvalue()


def oriented(kind: str, tag: int) -> bytes:
    """The scene as a picture with that EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = tag
    return pillow(scene(1), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def hidden() -> np.ndarray:
    """uint8 [3 96 128 4]: a square that shows; elsewhere random colours under alpha 0."""
    frames = np.zeros((3, HEIGHT, WIDTH, 4), np.uint8)
    frames[..., :3] = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    frames[:, 32:64, 32:96] = (220, 40, 40, 255)
    return frames


def hdr(transfer: str) -> bytes:
    """The scene in BT.2020 colours at 203 nits, with the transfer smpte2084 (PQ) or arib-std-b67 (HLG)."""
    code = scene(3) / 255
    linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    to_bt2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    light = (linear @ to_bt2020.T) * 203
    if transfer == "smpte2084":
        power = (light / 10_000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        luminance = (light / 1000) @ np.array([0.2627, 0.6780, 0.0593])
        shown = light / 1000 * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
        logarithm = 0.17883277 * np.log(np.maximum(12 * shown - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(shown <= 1 / 12, np.sqrt(3 * shown), logarithm)
    pictures = [
        av.VideoFrame.from_ndarray((frame * 65535 + 0.5).astype(np.uint16), format="rgb48le").reformat(
            format="yuv420p10le", dst_colorspace=Colorspace.BT2020
        )
        for frame in signal
    ]
    tags = f"log-level=none:colorprim=bt2020:colormatrix=bt2020nc:transfer={transfer}"
    return encoded("a.mp4", "libx265", pictures, pixels="yuv420p10le", options={"x265-params": tags, "crf": "8"})


def woven() -> bytes:
    """Frames of two fields each, a bar that moves between them: combed where they are taken for one."""
    x = np.arange(WIDTH)
    fields = [np.where(abs(x - 20 - 3 * t) < 12, 220, 30).astype(np.uint8) for t in range(24)]
    frames = np.empty((12, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, ::2], frames[:, 1::2] = (np.stack(fields[i::2])[:, None, :, None] for i in range(2))
    return x264("a.mp4", "tff=1:keyint=30", frames)


def with_rotten_bits(data: bytes, seed: int) -> bytes:
    """A video with three bits flipped in the packets of its pictures."""
    with av.open(io.BytesIO(data)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    rng, damaged = np.random.default_rng(seed), bytearray(data)
    for number in rng.integers(len(packets) // 4, len(packets), 3):
        start, size = packets[number]
        damaged[start + rng.integers(min(8, size - 1), size)] ^= 1 << rng.integers(8)
    return bytes(damaged)


def textured(count: int) -> np.ndarray:
    """uint8 [count 96 128 3] that take many bytes to encode."""
    grain = np.random.default_rng(0).integers(-20, 21, (count, HEIGHT, WIDTH, 3))
    return (moving(count) + grain).clip(0, 255).astype(np.uint8)


def files_to_cut() -> dict[str, bytes]:
    """Sound files, each of another way to tell where it ends."""
    frames = textured(24)
    h264 = {"options": {"x264-params": "keyint=12:bframes=2", "preset": "veryfast"}}
    plain, small = {"options": {"qscale": "4", "g": "12"}}, {"options": {"b": "1M", "g": "12", "cpu-used": "8"}}
    fragments = {"muxing": {"movflags": "frag_keyframe+empty_moov"}}
    return {
        "fragmented.mp4": encoded("a.mp4", "libx264", frames, **h264, **fragments),
        "fragmented vp9.mp4": encoded("a.mp4", "libvpx-vp9", frames, **small, **fragments),
        "h264.ts": encoded("a.ts", "libx264", frames, **h264),
        "hevc.ts": encoded(
            "a.ts", "libx265", frames, options={"x265-params": "log-level=none:keyint=12", "preset": "ultrafast"}
        ),
        "blu-ray.ts": encoded("a.ts", "mpeg2video", frames, **plain, muxing={"mpegts_m2ts_mode": "1"}),
        "mpeg2.mpg": encoded("a.mpg", "mpeg2video", frames, **plain),
        "mpeg1.mpg": encoded("a.mpg", "mpeg1video", frames, **plain),
        "h264.mkv": encoded("a.mkv", "libx264", frames, **h264),
        "vp8.webm": encoded("a.webm", "libvpx", frames, **small),
        "live vp8.webm": encoded("a.webm", "libvpx", frames, **small, muxing={"live": "1"}, live=True),
        "live.mkv": encoded("a.mkv", "libx264", frames, **h264, live=True),
        "mpeg4.avi": encoded("a.avi", "mpeg4", frames, **plain),
        "live.avi": encoded("a.avi", "mjpeg", frames, pixels="yuvj420p", options={"qscale": "4"}, live=True),
        "vp8.ogv": encoded("a.ogv", "libvpx", frames, **small),
        "h264.flv": encoded("a.flv", "libx264", frames, **h264),
        "live.flv": encoded("a.flv", "flv", frames, **plain, live=True),
        "wmv2.wmv": encoded("a.wmv", "wmv2", frames, **plain),
        "live.wmv": encoded("a.wmv", "wmv2", frames, **plain, live=True),
        "grey.gif": encoded("a.gif", "gif", frames[:8], pixels="gray"),
        "palettes.gif": pillow(frames[:8], "GIF", duration=40),
        "animated.png": pillow(frames[:6], "PNG", duration=40),
        "photograph.jpg": pillow(frames[:1], "JPEG", quality=95),
        "progressive.jpg": pillow(frames[:1], "JPEG", progressive=True),
    }


def files_to_rot() -> dict[str, bytes]:
    """Sound files in which any flipped bit is found, by the decoder or by checksums of the container."""
    frames = textured(12)
    return {
        "ffv1.avi": encoded("a.avi", "ffv1", frames, options={"level": "3"}),
        "vp9.webm": encoded("a.webm", "libvpx-vp9", frames, options={"b": "2M", "cpu-used": "8"}),
        "vp8.ogv": encoded("a.ogv", "libvpx", frames, options={"b": "2M"}),
        "hashes.mp4": encoded("a.mp4", "libx265", frames, options={"x265-params": "log-level=none:hash=1"}),
        "vp8.mkv": encoded("a.mkv", "libvpx", frames, options={"b": "2M"}),
        "animated.png": pillow(frames[:6], "PNG", duration=40),
    }
