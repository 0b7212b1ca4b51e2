"""The lattice test finds sinusoids of known amplitude and period, and only those that repeat with the stride."""

import itertools
import math

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.lattice import Lattice, flat_clips, lattice

STRIDE = 8
ROUNDING = 1.0  # grey levels: uint8 moves a pixel by half of one at most, so |F| / n by a half and an amplitude by one


def clips(pattern: np.ndarray, count: int = 2, frames: int = 3) -> np.ndarray:
    """Grey clips of a pattern [h w] about level 128."""
    levels = np.rint(128 + pattern).astype(np.uint8)
    return np.tile(levels[None, None, :, :, None], (count, frames, 1, 1, 3))


def wave(row_period: float, column_period: float, phase: float = 0.0, size: tuple[int, int] = (56, 72)) -> np.ndarray:
    row, column = np.indices(size)
    return np.cos(2 * np.pi * (row / row_period + column / column_period) + phase)


def strongest(frame: np.ndarray, stride: int) -> float:
    """The largest amplitude on the lattice by least squares on each of its sinusoids."""
    row, column = np.indices(frame.shape)
    amplitudes = []
    for i, j in itertools.islice(np.ndindex(stride, stride), 1, None):
        angle = 2 * np.pi * (i * row + j * column).ravel() / stride
        fit = np.linalg.lstsq(np.stack([np.cos(angle), np.sin(angle)], 1), frame.ravel() - frame.mean(), rcond=1e-9)
        amplitudes.append(math.hypot(*fit[0]))
    return max(amplitudes)


def test_flat_clips_are_the_corners_of_the_colour_cube():
    flat = flat_clips(ClipShape(5, 16, 24))
    assert flat.shape == (8, 5, 16, 24, 3) and flat.dtype == np.uint8
    np.testing.assert_array_equal(flat, np.broadcast_to(flat[:, :1, :1, :1], flat.shape))
    assert set(map(tuple, flat[:, 0, 0, 0].tolist())) == set(itertools.product((32, 224), repeat=3))


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_flat_frames_have_no_lattice(stride):
    assert lattice(flat_clips(ClipShape(2, 24, 48)), stride) == Lattice(0.0, math.inf, 0.0)


@pytest.mark.parametrize(
    ("row_period", "column_period", "period"),
    [
        (STRIDE, math.inf, 8),
        (math.inf, STRIDE, 8),
        (STRIDE / 2, math.inf, 4),
        (STRIDE, -STRIDE / 2, 4),
        (STRIDE / 3, math.inf, 8 / 3),
        (2, math.inf, 2),
        (math.inf, 2, 2),
        (2, 2, 2),
        (2, STRIDE, 2),
    ],
)
def test_a_sinusoid_of_the_lattice_is_measured(row_period, column_period, period):
    measured = lattice(clips(100 * wave(row_period, column_period)), STRIDE)
    assert measured.amplitude == pytest.approx(100, abs=ROUNDING)
    assert measured.period == pytest.approx(period)


def test_the_phase_does_not_matter():
    for phase in np.linspace(0, np.pi, 7):
        assert lattice(clips(100 * wave(8, 8, phase)), STRIDE).amplitude == pytest.approx(100, abs=ROUNDING)


@pytest.mark.parametrize("period", [3, 5, 7, 16, 24])
def test_a_period_that_does_not_divide_the_stride_is_not_counted(period):
    size = (STRIDE * (period + 2), 3 * STRIDE)  # whole periods remain inside the border
    measured = lattice(clips(100 * wave(period, math.inf, size=size)), STRIDE)
    assert measured.amplitude < ROUNDING
    assert measured.ripple == pytest.approx(100 / math.sqrt(2), abs=ROUNDING)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_amplitude_equals_a_least_squares_fit(stride):
    noise = np.random.default_rng(stride).integers(0, 256, (24, 36), np.uint8)
    inner = noise[stride:-stride, stride:-stride].astype(float)
    measured = lattice(clips(noise - 128.0), stride)
    assert measured.amplitude == pytest.approx(strongest(inner, stride), rel=1e-6)
    assert measured.ripple == pytest.approx(inner.std(), rel=1e-6)


def test_the_strongest_clip_frame_and_colour_counts():
    decoded = flat_clips(ClipShape(3, 40, 40))
    decoded[5, 2, :, :, 1] = np.rint(128 + 90 * wave(4, math.inf, size=(40, 40)))
    decoded[2, 0, :, :, 2] = np.rint(128 + 50 * wave(8, math.inf, size=(40, 40)))
    measured = lattice(decoded, STRIDE)
    assert measured.amplitude == pytest.approx(90, abs=ROUNDING)
    assert measured.period == 4
    assert measured.ripple == pytest.approx((90 + 50) / math.sqrt(2) / (8 * 3 * 3), rel=0.02)


@pytest.mark.parametrize(("size", "remains"), [(24, False), (16, True)])
def test_edges_stay_out_where_a_stride_remains(size, remains):
    pattern = np.zeros((size, size))
    pattern[[0, STRIDE - 1, -STRIDE]] = 100
    pattern[:, [0, STRIDE - 1, -STRIDE]] = 100
    measured = lattice(clips(pattern), STRIDE)
    assert (measured.amplitude > 0, measured.ripple > 0) == (remains, remains)


def test_frames_off_the_stride_are_refused():
    with pytest.raises(UserError, match="do not divide by the stride 8"):
        lattice(clips(np.zeros((24, 28))), STRIDE)
