"""Motion energies of clips whose values follow from a formula."""

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.motion import back_and_forth, motion_energy, smooth_motion_energy


def levels(*grey: int) -> np.ndarray:
    """A clip [t 4 6 3] of one grey level a frame."""
    return np.tile(np.array(grey, np.uint8)[:, None, None, None], (1, 4, 6, 3))


def test_a_still_clip_has_no_energy():
    assert motion_energy(levels(9, 9, 9)) == smooth_motion_energy(levels(9, 9, 9)) == 0


@pytest.mark.parametrize("clip", [levels(0, 10, 20, 30), levels(250, 240, 230, 220)])
def test_steady_change_counts_in_full(clip):
    assert motion_energy(clip) == smooth_motion_energy(clip) == 10


def test_alternating_flicker_counts_for_motion_energy_alone():
    clip = levels(100, 106, 100, 106, 100)
    assert motion_energy(clip) == 6
    assert smooth_motion_energy(clip) == 0
    assert back_and_forth(clip) == 6 and back_and_forth(levels(0, 10, 20, 30)) == 0


def test_an_edge_that_moves_a_pixel_a_frame():
    columns = np.arange(20)
    clip = np.stack([np.where(columns < 5 + t, 200, 0) for t in range(8)]).astype(np.uint8)
    clip = np.broadcast_to(clip[:, None, :, None], (8, 3, 20, 3))
    assert motion_energy(clip) == pytest.approx(200 / 20)
    assert smooth_motion_energy(clip) == pytest.approx(200 / 20)


def test_noise_counts_for_half():
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    expected = (256**2 - 1) / (3 * 256)  # E |x - y| of two uniform levels
    assert motion_energy(noise) == pytest.approx(expected, rel=0.01)
    assert smooth_motion_energy(noise) == pytest.approx(expected / 2, rel=0.01)


def test_a_batch_gives_the_values_of_its_clips():
    batch = np.random.default_rng(1).integers(0, 256, (3, 5, 4, 6, 3), np.uint8)
    for energy in (motion_energy, smooth_motion_energy):
        assert energy(batch[0]).shape == ()
        np.testing.assert_array_equal(energy(batch), [energy(clip) for clip in batch])


def test_clips_too_short_are_refused():
    with pytest.raises(UserError, match="at least 2 frames; these have 1"):
        motion_energy(levels(1))
    with pytest.raises(UserError, match="at least 3 frames; these have 2"):
        smooth_motion_energy(levels(1, 2))
