"""The shape detector: right on drawn clips, on spoilt ones, and able to say that a clip is not what was asked for."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import ndimage

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.shapes.shape_world import draw
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.metrics.accuracy import ALL, accuracies, chance
from mobile_video_jax.metrics.shape_detector import Detected, detect

FULL = World()
SINGLE = World(counts=(1,))
DEMO = World(
    counts=(1,),
    shapes=("circle", "square", "triangle"),
    motions=("left", "right", "up", "down", "still"),
    backgrounds=("dark", "light"),
)


@functools.cache
def samples(world, clip, n, split="test"):
    return [draw(world, ClipShape.parse(clip), 0, index, split) for index in range(n)]


def scores(world, rendered, spoil=lambda frames: frames):
    return shares(world, [(s.attributes, detect(spoil(s.frames), world)) for s in rendered])


def shares(world, pairs):
    """The share of clips that are right in each single attribute."""
    return {name: score.value for name, score in accuracies(world, pairs).items() if name != ALL}


def spoiler(blur, noise, gain=1.0, speckles=0):
    """Blurs, adds noise, washes colours out with a tint, and scatters small blots of any colour."""
    rng = np.random.default_rng(0)

    def spoil(frames):
        video = ndimage.gaussian_filter(frames.astype(np.float32), (0, blur, blur, 0))
        grey = video.mean(axis=-1, keepdims=True)
        video = grey + gain * (video - grey) + rng.normal(0, noise, video.shape) + rng.uniform(-8, 8, 3)
        for _ in range(speckles * len(video)):
            frame, row, column = rng.integers([len(video), *np.array(video.shape[1:3]) - 2])
            video[frame, row : row + 2, column : column + 2] = rng.uniform(0, 255, 3)
        return np.clip(video + 0.5, 0, 255).astype(np.uint8)

    return spoil


@pytest.mark.parametrize(("world", "clip"), [(FULL, "17x48x48"), (DEMO, "17x32x32")], ids=["full", "demo"])
def test_drawn_clips_are_read_right(world, clip):
    assert min(scores(world, samples(world, clip, 120)).values()) >= 0.99


@pytest.mark.parametrize("clip", ["5x32x48", "9x80x40", "4x64x64", "33x64x64", "9x32x128", "1x64x64", "1x48x32"])
def test_any_clip_shape_is_read_right(clip):
    assert min(scores(FULL, samples(FULL, clip, 50, "train")).values()) >= 0.98


@pytest.mark.parametrize(("blur", "noise"), [(0.8, 6), (1.0, 8), (1.5, 8)])
def test_blurred_and_noisy_clips_are_read_right(blur, noise):
    assert min(scores(SINGLE, samples(SINGLE, "17x32x32", 80), spoiler(blur, noise)).values()) >= 0.97


def test_groups_are_read_through_pale_colours_and_blots():
    spoil = spoiler(1.0, 8, gain=0.7, speckles=2)
    assert min(scores(FULL, samples(FULL, "17x64x64", 100), spoil).values()) >= 0.97


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (lambda frames: frames[::-1], {"motion": "left"}, {"motion": "right"}),
        (lambda frames: frames.transpose(0, 2, 1, 3), {"motion": "left"}, {"motion": "up"}),
        (lambda frames: np.repeat(frames[:1], 9, axis=0), {"motion": "circling"}, {"motion": "still"}),
        (lambda frames: frames[..., [1, 0, 2]], {"colour": "red"}, {"colour": "green"}),
        (lambda frames: 255 - frames, {"colour": "blue"}, {"colour": "yellow"}),
        (lambda frames: np.concatenate([frames, frames], axis=1), {"count": 1}, {"count": 2}),
    ],
)
def test_a_changed_clip_reads_as_what_it_now_shows(change, before, after):
    rendered = [
        s for s in samples(FULL, "9x64x64", 200, "train") if before.items() <= dataclasses.asdict(s.attributes).items()
    ]
    plain = [s for s in rendered if s.attributes.shape in ("square", "cross")]  # look alike when turned
    assert len(plain) >= 8
    for sample in plain:
        expected = {name: getattr(sample.attributes, name) for name in ("count", "colour", "shape", "motion")} | after
        assert dataclasses.asdict(detect(np.ascontiguousarray(change(sample.frames)), FULL)) == expected


@pytest.mark.parametrize("noise", [0, 8])
def test_a_clip_without_colour_shows_nothing(noise):
    video = np.random.default_rng(0).normal(120, noise, (5, 32, 32, 3))
    assert detect(np.clip(video, 0, 255).astype(np.uint8), FULL) == Detected()


def test_answers_are_values_of_the_world():
    narrow = World(counts=(1, 2), colours=("cyan", "red"), shapes=("triangle", "square"), motions=("down", "left"))
    for sample in samples(FULL, "5x48x48", 60, "train") + samples(FULL, "1x48x48", 10, "train"):
        answers = dataclasses.asdict(detect(sample.frames, narrow))
        assert all(value in narrow.values(name) for name, value in answers.items())


def test_accuracy_against_other_clips_is_near_chance():
    rendered = samples(FULL, "5x64x64", 200, "train")
    shifted = [sample.attributes for sample in rendered[1:] + rendered[:1]]
    wrong = shares(FULL, [(other, detect(s.frames, FULL)) for other, s in zip(shifted, rendered, strict=True)])
    levels = {"count": 1 / 3, "colour": 1 / 6, "shape": 1 / 4, "motion": 1 / 6}
    assert chance(FULL) == {**levels, ALL: pytest.approx(1 / 432)}
    assert all(abs(wrong[name] - level) < 0.12 for name, level in levels.items())
