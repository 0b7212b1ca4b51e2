"""Small real videos for tests; frame number i is a plain grey of level 8 i + 8, so that every frame tells its place."""

import io
import json
from pathlib import Path

import av
import numpy as np

CODECS = {
    ".mp4": ("libx264", "yuv420p"),
    ".mov": ("libx264", "yuv420p"),
    ".mkv": ("libx264", "yuv420p"),
    ".webm": ("libvpx-vp9", "yuv420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".gif": ("gif", "gray"),
}


def greys(count: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.broadcast_to(levels(count)[:, None, None, None], (count, height, width, 3)).copy()


def levels(count: int) -> np.ndarray:
    return (8 * np.arange(count) + 8).astype(np.uint8)


def noise(count: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Frames that do not compress, so that most of the file is pictures."""
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)


def quarters(count, height=24, width=32):
    """Four colours in four corners."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, : height // 2, : width // 2] = (230, 35, 35)
    frames[:, : height // 2, width // 2 :] = (35, 230, 35)
    frames[:, height // 2 :, : width // 2] = (35, 35, 230)
    frames[:, height // 2 :, width // 2 :] = (230, 230, 230)
    return frames


def write_video(path: Path, frames: np.ndarray, rotation: int = 0, first_moov: bool = False) -> Path:
    """Encodes frames at 10 fps in the container that the name asks for, with B-frames and sparse key frames."""
    codec, pixels = CODECS[path.suffix]
    options = {"movflags": "faststart"} if first_moov else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata["title"] = path.name  # so that no two files have the same bytes
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        if codec == "libx264":
            stream.options = {"crf": "4", "g": "9", "bf": "2"}
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_captions(folder: Path, *names: str) -> None:
    lines = [json.dumps({"file": name, "caption": f"a video called {name}"}) for name in names]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def video_folder(folder: Path, count: int, frames: int = 12) -> Path:
    """A folder of `count` sound videos with captions."""
    folder.mkdir()
    names = [f"clip{number:02}.mp4" for number in range(count)]
    for name in names:
        write_video(folder / name, greys(frames))
    write_captions(folder, *names)
    return folder


def image_bytes(frame: np.ndarray, suffix: str) -> bytes:
    """One frame as a PNG, JPEG or WebP file."""
    codec, pixels = {".png": ("png", "rgb24"), ".jpg": ("mjpeg", "yuvj420p"), ".webp": ("libwebp", "yuv420p")}[suffix]
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], pixels
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()
