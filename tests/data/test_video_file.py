"""Clean files: what they hold, clips out of them, and what is refused."""

import io

import av
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.data.video.render import Crop
from tests.data.videos import CODECS, greys, image_bytes, levels, noise, quarters, write_video


@pytest.mark.parametrize("suffix", CODECS)
def test_probe_and_exact_frames_in_every_container(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", greys(25))
    info = probe(path)
    assert (info.frames, info.height, info.width) == (25, 24, 32)
    assert info.fps == pytest.approx(10, rel=0.01)
    assert info.seconds == pytest.approx(2.5, rel=0.01)
    for start in (0, 1, 8, 9, 13, 20):  # key frames lie at 0, 9 and 18
        clip = decode(path.read_bytes(), ClipShape(5, 24, 32), start)
        assert clip.shape == (5, 24, 32, 3)
        np.testing.assert_allclose(
            clip.mean(axis=(1, 2, 3)), levels(25)[start : start + 5], atol=3.5
        )  # neighbours differ by 8


def test_decode_past_the_end_is_an_error(tmp_path):
    data = write_video(tmp_path / "a.mp4", greys(10)).read_bytes()
    for start in (6, 50):
        with pytest.raises(UnreadableVideo, match=f"5 frames from frame {start}"):
            decode(data, ClipShape(5, 24, 32), start)


def test_cover_scale_and_crop(tmp_path):
    data = write_video(tmp_path / "a.mp4", quarters(2, 64, 128)).read_bytes()
    left, right = (decode(data, ClipShape(1, 32, 32), 0, Crop(column=place))[0] for place in (0.0, 1.0))
    assert left[4, 4, 0] > 200 > 60 > left[4, 4, 1]  # wholly in the red and blue half
    assert right[4, 4, 1] > 200 > 60 > right[4, 4, 0]
    middle = decode(data, ClipShape(1, 32, 32))[0]
    assert middle[4, 4, 0] > 200
    assert middle[4, 28, 1] > 200
    zoomed = decode(data, ClipShape(1, 32, 32), 0, Crop(zoom=2.0, row=0.0, column=0.0))[0]
    assert (zoomed[:-2, :, 0] > 200).all()  # a quarter of the height fills the clip


def test_a_native_crop_is_a_part_of_the_frame_as_it_is(tmp_path):
    data = write_video(tmp_path / "a.mp4", noise(2, 64, 128)).read_bytes()
    [whole] = decode(data, ClipShape(1, 64, 128))
    [corner] = decode(data, ClipShape(1, 32, 48), 0, Crop(row=0.0, column=1.0, native=True))
    np.testing.assert_array_equal(corner, whole[:32, -48:])
    # A video smaller than the clip is enlarged to cover it.
    larger = ClipShape(1, 128, 128)
    native, covering = (decode(data, larger, 0, crop) for crop in (Crop(native=True), Crop()))
    np.testing.assert_array_equal(native, covering)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_videos_come_upright(tmp_path, rotation):
    stored = quarters(3, 32, 64)
    path = write_video(tmp_path / "phone.mp4", stored, rotation=rotation)
    upright = np.rot90(stored, rotation // 90, axes=(1, 2))
    info = probe(path)
    assert (info.height, info.width) == upright.shape[1:3]
    clip = decode(path.read_bytes(), ClipShape(3, info.height, info.width))
    assert np.abs(clip.astype(int) - upright).mean() < 8


@pytest.mark.parametrize("pixels", ["yuv422p", "yuv444p", "yuvj420p", "yuv420p10le"])
def test_unusual_pixel_formats(tmp_path, pixels):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 24, 32, pixels
        container.mux(stream.encode(av.VideoFrame.from_ndarray(greys(20)[19], format="rgb24")))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(decode(path.read_bytes(), ClipShape(1, 24, 32)).mean(), levels(20)[19], atol=3)


def test_unreadable_content_is_named(tmp_path):
    write_video(tmp_path / "good.mp4", greys(5))
    whole = write_video(tmp_path / "a.mp4", noise(30), first_moov=True).read_bytes()
    sound = io.BytesIO()
    with av.open(sound, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for data, reason in [
        (b"", "does not decode"),
        (b"no video at all\n" * 100, "does not decode"),
        (b"\x00" * 5000, "does not decode"),
        (sound.getvalue(), "it holds no video, only sound"),
        (whole[: len(whole) // 2], r"truncated after \d+ frames"),
        # A list of other files to play must not open them.
        (f"ffconcat version 1.0\nfile {tmp_path / 'good.mp4'}\n".encode(), "does not decode"),
    ]:
        with pytest.raises(UnreadableVideo, match=reason):
            probe(data)


def test_truncated_without_a_frame_count(tmp_path):
    # Matroska does not say how many frames there are, only how long they last.
    data = write_video(tmp_path / "a.mkv", noise(30)).read_bytes()
    with pytest.raises(UnreadableVideo, match="truncated: its last element ends"):
        probe(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_still_image_is_a_clip_of_one_frame(suffix):
    picture = quarters(1, 64, 128)[0]
    data = image_bytes(picture, suffix)
    info = probe(data)
    assert (info.frames, info.height, info.width) == (1, 64, 128)
    clip = decode(data, ClipShape(1, 32, 32))  # scaled to cover, cut at the centre
    assert np.abs(clip[0].astype(int) - quarters(1, 32, 64)[0, :, 16:48]).mean() < 8
    with pytest.raises(UnreadableVideo, match="2 frames from frame 0"):
        decode(data, ClipShape(2, 32, 32))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_that_stops_early_is_refused(suffix):
    data = image_bytes(noise(1, 96, 128)[0], suffix)
    for share in (0.3, 0.9):
        with pytest.raises(UnreadableVideo, match="damaged or truncated|truncated: it has no end"):
            probe(data[: int(share * len(data))])


def test_a_photograph_comes_upright():
    jpeg = image_bytes(quarters(1, 32, 64)[0], ".jpg")
    # An EXIF segment of one field: orientation (0x0112) 6, which cameras write when held upright.
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    segment = b"\xff\xe1" + (2 + 6 + len(tiff)).to_bytes(2) + b"Exif\0\0" + tiff
    data = jpeg[:2] + segment + jpeg[2:]
    assert (probe(data).height, probe(data).width) == (64, 32)
    upright = np.rot90(quarters(1, 32, 64)[0], -1)
    assert np.abs(decode(data, ClipShape(1, 64, 32))[0].astype(int) - upright).mean() < 8


def test_titles_in_other_encodings_do_not_matter(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "xxCAFExx"
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(greys(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    latin = path.read_bytes().replace(b"xxCAFExx", "xxCAFÉxx".encode("latin-1"))
    assert probe(latin).frames == 1


def test_damaged_bytes_never_crash(tmp_path):
    data = bytearray(write_video(tmp_path / "a.mp4", quarters(20)).read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = data.copy()
        for place in rng.integers(0, len(data), 20):
            damaged[place] = rng.integers(256)
        try:
            probe(bytes(damaged))
            decode(bytes(damaged), ClipShape(4, 16, 16), 3)
        except UnreadableVideo:
            pass
