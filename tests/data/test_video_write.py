"""Small mp4 and gif files that are written to be watched."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.data.video.write import gif_bytes, mp4_bytes, write_gif, write_mp4
from tests.data.videos import noise, quarters


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, 1), (33, 47, 1), (33, 47, 2), (5, 7, 4)])
def test_written_mp4_keeps_size_place_and_colour(tmp_path, height, width, scale):
    frames = quarters(6, height, width)
    write_mp4(tmp_path / "a.mp4", frames, fps=8, scale=scale)
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (6, height * scale, width * scale, 8)
    back = decode((tmp_path / "a.mp4").read_bytes(), ClipShape(6, info.height, info.width))
    assert np.abs(back.astype(int) - frames.repeat(scale, 1).repeat(scale, 2)).mean() < 7
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_lower_crf_loses_less():
    rough = np.repeat(noise(6, 32, 32)[..., :1], 3, axis=-1)
    fine, coarse = (decode(mp4_bytes(rough, 8, 1, crf), ClipShape(6, 32, 32)).astype(int) for crf in (2, 40))
    assert np.abs(fine - rough).mean() < np.abs(coarse - rough).mean() / 2


def test_the_same_frames_give_the_same_mp4():
    # glibc fills fresh memory with this byte, so that whatever reads it shows.
    script = (
        "import numpy as np, hashlib; from mobile_video_jax.data.video.write import mp4_bytes;"
        "frames = np.random.default_rng(0).integers(0, 256, (8, 9, 4, 4, 3), np.uint8).repeat(8, 2).repeat(8, 3);"
        "print(hashlib.sha256(b''.join(mp4_bytes(clip, 8) for clip in frames)).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], env={**os.environ, "MALLOC_PERTURB_": fill}, capture_output=True)
        for fill in ("1", "170")
    ]
    assert runs[0].stdout == runs[1].stdout != b""


def test_gif_has_a_palette_of_its_own_colours(tmp_path):
    frames = quarters(6, 33, 47)
    write_gif(tmp_path / "a.gif", frames, fps=8, scale=3)
    info = probe(tmp_path / "a.gif")
    assert (info.frames, info.height, info.width) == (6, 99, 141)
    assert info.fps == pytest.approx(8, rel=0.02)
    back = decode(gif_bytes(frames, 8), ClipShape(6, 33, 47))
    assert np.abs(back.astype(int) - frames).max() <= 1  # 256 colours hold four exactly; a fixed palette does not
