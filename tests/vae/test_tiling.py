"""Tiles cover a frame, and blending them gives it back."""

import numpy as np
import pytest

from mobile_video_jax.vae.tiling import Blend, tile_starts, tiles_of


@pytest.mark.parametrize(("length", "side", "overlap"), [(10, 4, 1), (7, 4, 2), (16, 8, 0), (5, 8, 2), (9, 4, 2)])
def test_tiles_cover_the_axis_with_at_least_the_overlap(length, side, overlap):
    starts = tile_starts(length, side, overlap)
    ends = [start + min(side, length) for start in starts]
    assert starts[0] == 0 and ends[-1] == length
    assert all(end - start >= overlap for start, end in zip(starts[1:], ends, strict=False))


def test_blending_tiles_of_one_picture_gives_the_picture():
    picture = np.random.default_rng(0).normal(size=(1, 2, 10, 14, 3)).astype(np.float32)
    grid, blend = (5, 7), Blend((5, 7))
    for tile in tiles_of(grid, 3, 1):
        blend.add(picture[tile.window(picture, grid)], tile, 1)
    np.testing.assert_allclose(blend.mean(), picture, atol=1e-5)
