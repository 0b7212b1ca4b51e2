"""Clip shapes."""

import pytest

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError


def test_the_papers_token_counts():
    clip = ClipShape.parse("49x384x512")
    assert clip.latent(Compression.parse("t8_s32_c128")) == (7, 12, 16)
    assert clip.tokens(Compression.parse("t8_s32_c128")) == 1344
    assert clip.tokens(Compression.parse("t4_s16_c16")) == 9984
    assert Compression.parse("t8_s32_c128").ratio == 192


def test_an_illegal_frame_count_names_the_two_nearest_legal_ones():
    with pytest.raises(UserError, match=r"49 frames at temporal stride 8 are legal \(8k\+1\); 50 is not: use 49 or 57"):
        ClipShape.parse("50x384x512").check(Compression.parse("t8_s32_c128"))


def test_an_illegal_size_names_the_two_nearest_legal_ones():
    with pytest.raises(UserError, match="width 500 does not divide by the spatial stride 32: use 480 or 512"):
        ClipShape.parse("49x384x500").check(Compression.parse("t8_s32_c128"))


@pytest.mark.parametrize("text", ["49x384", "axbxc", "0x32x32", "49x384x512x3", ""])
def test_a_clip_that_cannot_be_read_is_refused(text):
    with pytest.raises(UserError, match="is not of the form"):
        ClipShape.parse(text)


@pytest.mark.parametrize("text", ["t3_s16_c8", "t8_s4_c8", "t4_s16", "t4_s16_c0", "s16_t4_c8"])
def test_a_compression_that_cannot_be_built_is_refused(text):
    with pytest.raises(UserError, match="compression"):
        Compression.parse(text)
