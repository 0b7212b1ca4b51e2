"""Files that stop before their end or changed since they were written are refused, sound ones of odd writers taken."""

import numpy as np
import pytest

from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.probe import probe
from tests.data.odd_videos import files_to_cut, files_to_rot, pillow, scene, with_rotten_bits

WHOLE, SOUND = files_to_cut(), files_to_rot()
PACKET = 188  # bytes of a transport stream's


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_are_taken_with_what_others_put_behind_them(name):
    frames = probe(WHOLE[name]).frames
    assert frames == (1 if name.endswith("jpg") else 6 if name.endswith("png") else 8 if name.endswith("gif") else 24)
    for junk in (b"\0" * 100, b"not of the file\n", np.random.default_rng(0).bytes(177)):
        assert probe(WHOLE[name] + junk).frames == frames


@pytest.mark.parametrize("name", WHOLE)
def test_cut_files_are_refused(name):
    data = WHOLE[name]
    for share in (0.35, 0.5, 0.63, 0.77, 0.9):
        length = int(len(data) * share)
        length += name.endswith("ts") and length % PACKET == 0  # recordings may end between packets
        with pytest.raises(UnreadableVideo, match="truncated|damaged|does not decode"):
            probe(data[:length])


def test_a_picture_without_its_last_bytes_is_refused():
    for name in ("grey.gif", "palettes.gif", "animated.png", "photograph.jpg", "progressive.jpg"):
        with pytest.raises(UnreadableVideo, match="truncated"):
            probe(WHOLE[name][:-1])


def test_transport_streams_are_taken_in_pieces_but_not_with_packets_lost():
    for name in ("h264.ts", "hevc.ts"):
        data = WHOLE[name]
        third = len(data) // PACKET // 3 * PACKET
        assert probe(data + data).frames == 48
        assert 0 < probe(data[third:]).frames < 24  # from the next key frame on
        begins = [bool(data[place + 1] & 0x40) for place in range(third, len(data), PACKET)]
        lost = third + PACKET * next(i for i in range(len(begins)) if not any(begins[i : i + 3]))
        with pytest.raises(UnreadableVideo, match="damaged: packets of it are lost"):
            probe(data[:lost] + data[lost + 2 * PACKET :])


def test_what_follows_a_picture_is_none_of_it():
    picture = pillow(scene(1), "PNG")
    assert probe(picture + picture).frames == probe(picture + b"more").frames == 1


@pytest.mark.parametrize("name", SOUND)
def test_flipped_bits_are_found_each_time(name):
    probe(SOUND[name])
    for seed in range(6):
        damaged = with_rotten_bits(SOUND[name], seed)
        for _ in range(2):  # FFmpeg says it but once
            with pytest.raises(UnreadableVideo, match="damaged|truncated: .* frames decode"):
                probe(damaged)
