"""Ordinary files that many readers get wrong are taken as what they show, or refused by their right name."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.probe import probe
from tests.data.odd_videos import (
    CORNERS,
    HEIGHT,
    WIDTH,
    cut_copy,
    encoded,
    hdr,
    hidden,
    mirrored,
    moving,
    oriented,
    pillow,
    scene,
    song,
    stretched,
    two_tracks,
    with_rotten_bits,
    woven,
    x264,
)

EVEN = [40 * i for i in range(30)]


def shown(data: bytes) -> np.ndarray:
    """The whole video at the size that it is shown in."""
    info = probe(data)
    return decode(data, ClipShape(info.frames, info.height, info.width))


def error(left: np.ndarray, right: np.ndarray) -> float:
    assert left.shape == right.shape
    return float(np.abs(left.astype(int) - right).mean())


def corners(frame: np.ndarray) -> np.ndarray:
    """The colours in the middles of the four corners."""
    height, width = frame.shape[:2]
    return np.array([frame[row, column] for row in (height // 6, 2 * height // 3) for column in (8, width - 9)])


@pytest.mark.parametrize(
    ("matrix", "change"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((-1, 0, 0, 1), lambda x: x[:, :, ::-1]),
        ((1, 0, 0, -1), lambda x: x[:, ::-1]),
        ((-1, 0, 0, -1), lambda x: x[:, ::-1, ::-1]),
        ((0, 1, 1, 0), lambda x: x.swapaxes(1, 2)),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1, (1, 2))),
        ((0, -1, 1, 0), lambda x: np.rot90(x, 1, (1, 2))),
        ((0, -1, -1, 0), lambda x: x[:, ::-1, ::-1].swapaxes(1, 2)),
    ],
)
def test_display_matrices_turn_and_mirror(matrix, change):
    assert error(shown(mirrored(*matrix)), change(scene(3))) < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_pictures_stand_as_their_exif_says(kind, tag):
    picture = Image.open(io.BytesIO(oriented(kind, tag)))
    upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))[None]
    assert error(shown(oriented(kind, tag)), upright) < 3


def test_pixels_come_square():
    wide = scene(3)[:, :, ::2]
    assert error(shown(stretched("a.mp4", wide, "2")), scene(3)) < 4
    assert error(shown(stretched("a.mkv", scene(3)[:, ::2], "1/2")), scene(3)[:, ::2, ::2]) < 4


def test_what_alpha_hides_never_shows():
    expected = np.full((HEIGHT, WIDTH, 3), 255)
    expected[32:64, 32:96] = (220, 40, 40)
    files = {
        "png": pillow(hidden()[:1], "PNG"),
        "webp": pillow(hidden()[:1], "WEBP", lossless=True, exact=True),
        "palette": pillow(hidden()[:1], "PNG", mode="P"),
        "vp9": encoded("a.webm", "libvpx-vp9", hidden(), pixels="yuva420p", options={"crf": "10", "b": "0"}),
        "qtrle": encoded("a.mov", "qtrle", hidden(), pixels="argb"),
    }
    for name, data in files.items():
        frame = shown(data)[0]
        ground = np.delete(frame, np.s_[28:68], axis=0)
        assert np.abs(ground.astype(int) - 255).max() <= 3, name
        assert np.abs(frame[40:56, 40:88].astype(int) - (220, 40, 40)).mean() < 4, name
        small = decode(data, ClipShape(1, 24, 32))[0]
        assert error(small, expected[2::4, 2::4]) < 4, name


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_is_tone_mapped(transfer):
    assert np.abs(corners(shown(hdr(transfer))[0]).astype(int) - list(CORNERS.values())).max() <= 8


def test_interlaced_video_is_deinterlaced():
    combed = np.abs(np.diff(shown(woven()).astype(int), n=2, axis=1)).mean()
    assert combed < 3  # 40 as it is stored


@pytest.mark.parametrize(
    ("matrix", "pixels"), [("bt709", "yuv420p"), ("smpte170m", "yuvj420p"), ("bt709", "yuv444p"), ("gbr", "gbrp")]
)
def test_colours_are_those_of_the_source(matrix, pixels):
    codec = "libx264rgb" if pixels == "gbrp" else "libx264"
    data = encoded("a.mp4", codec, scene(2), pixels="rgb24" if pixels == "gbrp" else pixels, options={"crf": "5"})
    assert np.abs(corners(shown(data)[0]).astype(int) - list(CORNERS.values())).max() <= 3


def test_a_film_cut_without_encoding_has_the_frames_that_show():
    film = x264("a.mp4", "keyint=25:min-keyint=25:scenecut=0:bframes=2", moving(60))
    assert error(shown(cut_copy(film, 1600)), moving(60)[40:]) < 8


def test_times_that_are_sound_are_not_called_truncated():
    for data in (
        x264("a.mp4", "bframes=0", scene(), milliseconds=EVEN, last_duration=10_000),
        x264("a.mkv", "bframes=0", scene(), milliseconds=EVEN, last_duration=10_000),
        x264("a.mkv", "bframes=0", scene(), milliseconds=[100_000 + time for time in EVEN]),
        pillow(scene(), "GIF", duration=[40] * 29 + [3000]),
    ):
        info = probe(data)
        assert info.frames == 30 and info.fps == pytest.approx(25, rel=0.01)


def test_truncated_files_are_found_whatever_their_times():
    late = x264("a.mkv", "bframes=0", moving(30), milliseconds=[100_000 + time for time in EVEN])
    dropping = encoded("a.avi", "huffyuv", moving(30), pixels="yuv422p", milliseconds=[3 * time for time in EVEN])
    assert probe(dropping).frames == 30  # a third of those that its header counts
    for data in (late, dropping):
        for share in (0.5, 0.7):
            with pytest.raises(UnreadableVideo, match="truncated"):
                probe(data[: int(len(data) * share)])


def test_the_default_stream_is_shown():
    assert error(shown(two_tracks()), scene()) < 4


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mpg", "mpeg2video"),
        ("a.ts", "libx264"),
        ("a.ogv", "libvpx"),
        ("a.m4v", "mpeg4"),
        ("a.wmv", "wmv2"),
        ("a.flv", "flv"),
    ],
)
def test_other_containers(name, codec):
    assert error(shown(encoded(name, codec, scene(12), options={"b": "4M"})), scene(12)) < 6


def test_animations_and_sound_are_told_apart():
    assert error(shown(pillow(scene(12), "PNG", duration=40)), scene(12)) == 0
    for data, reason in (
        (pillow(scene(3), "WEBP", duration=40), "animated WebP is not supported"),
        (pillow(scene(1), "AVIF"), "HEIC and AVIF pictures are not supported"),
        (song(cover=False), "it holds no video, only sound$"),
        (song(cover=True), "it holds no video, only sound and a cover picture"),
        (b"#EXTM3U\n#EXTINF:1,\na.ts\n", "it does not decode"),
    ):
        with pytest.raises(UnreadableVideo, match=reason):
            probe(data)


def test_a_large_photograph_is_read_from_its_file(tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for mode in ("RGB", "CMYK", "L"):
        path = tmp_path / f"{mode}.jpg"
        path.write_bytes(pillow(photograph[None], "JPEG", mode=mode, quality=95))
        info = probe(path)
        assert (info.frames, info.height, info.width) == (1, 480, 640) and path.stat().st_size > 10_000


def test_a_few_rotten_bits_are_found():
    data = x264("a.mp4", "keyint=50", moving(40).repeat(2, 1).repeat(2, 2))
    for seed in range(12):
        with pytest.raises(UnreadableVideo, match="damaged"):
            probe(with_rotten_bits(data, seed))
