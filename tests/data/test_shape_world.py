"""The shape world: draws are repeatable, true to their captions, and never leave the frame or touch."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.shape_world import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    WORDINGS,
    Attributes,
    caption,
    coverage,
    draw,
    prompts,
)
from mobile_video_jax.data.shapes.world import ATTRIBUTES, KNOWN, World, combinations

CLIP = ClipShape(9, 64, 64)
DEMO = World(
    counts=(1,),
    shapes=("circle", "square", "triangle"),
    motions=("left", "right", "up", "down", "still"),
    backgrounds=("dark", "light"),
)
PAIR = World(counts=(1,), colours=("red", "blue"), shapes=("circle",), motions=("left", "still"))
CLIPS = [CLIP, ClipShape(5, 32, 32), ClipShape(7, 48, 96), ClipShape(4, 80, 32)]


def chroma(frames):
    return frames.max(axis=-1).astype(int) - frames.min(axis=-1)


def centre(frame):
    return np.array(ndimage.center_of_mass(chroma(frame)))


def test_a_draw_is_a_function_of_seed_split_and_index():
    first, again = (draw(World(), CLIP, 3, 17, "train") for _ in range(2))
    assert np.array_equal(first.frames, again.frames) and first.caption == again.caption
    others = [draw(World(), CLIP, *key) for key in ((4, 17, "train"), (3, 18, "train"), (3, 17, "validation"))]
    assert not any(np.array_equal(first.frames, other.frames) for other in others)


@pytest.mark.parametrize("world", [World(), DEMO, PAIR])
def test_test_holds_out_combinations_but_no_value(world):
    train, test = (set(combinations(world, split)) for split in ("train", "test"))
    assert set(combinations(world, "validation")) == train
    assert test and not train & test
    assert train | test == set(itertools.product(*(world.values(attribute) for attribute in ATTRIBUTES)))
    for place, attribute in enumerate(ATTRIBUTES):
        assert {combination[place] for combination in train} == set(world.values(attribute))


@pytest.mark.parametrize("world", [World(), DEMO])
def test_every_value_is_held_out_equally_often(world):
    test = combinations(world, "test")
    assert len(test) * 6 == len(test) + len(combinations(world, "train"))
    for place, attribute in enumerate(ATTRIBUTES):
        values = [combination[place] for combination in test]
        counts = [values.count(value) for value in world.values(attribute)]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_prompts_are_those_of_the_drawn_clips(split):
    rendered = [draw(World(), ClipShape(2, 32, 32), 5, index, split) for index in range(40)]
    assert prompts(World(), 5, 40, split) == [(sample.caption, sample.attributes) for sample in rendered]
    combination_set = {tuple(getattr(sample.attributes, name) for name in ATTRIBUTES) for sample in rendered}
    assert len(combination_set) > 20 and combination_set <= set(combinations(World(), split))
    assert {sample.attributes.background for sample in rendered} == set(World().backgrounds)


@pytest.mark.parametrize(
    ("attributes", "texts"),
    [
        (
            Attributes(1, "red", "circle", "left", "dark"),
            [
                "one red circle moving left",
                "a red circle moving left",
                "a red circle moves to the left",
                "one red circle that moves to the left",
            ],
        ),
        (
            Attributes(3, "green", "cross", "circling", "dark"),
            ["three green crosses going round in circles"] * 2
            + ["three green crosses go round in circles", "three green crosses that go round in circles"],
        ),
        (
            Attributes(2, "blue", "square", "still", "light"),
            ["two blue squares staying still"] * 2
            + ["two blue squares stay still", "two blue squares that stay still"],
        ),
    ],
)
def test_captions_are_exact_english(attributes, texts):
    assert [caption(attributes, wording) for wording in range(len(WORDINGS))] == texts


def test_no_two_contents_share_a_caption():
    contents = [*combinations(World(), "train"), *combinations(World(), "test")]
    texts = [{caption(Attributes(*content, "dark"), wording) for wording in range(4)} for content in contents]
    assert len(set.union(*texts)) == sum(map(len, texts))


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_objects_stay_inside_and_apart(clip):
    border = np.ones((clip.height, clip.width), bool)
    border[1:-1, 1:-1] = False
    for index in range(60):
        sample = draw(World(), clip, 0, index, "train")
        count = sample.attributes.count
        for frame in chroma(sample.frames) > 97:  # at least half covered
            assert ndimage.label(frame)[1] == count
            assert (frame & border).sum() <= count  # the tip of a triangle may come as far as the outermost pixels
        areas = chroma(sample.frames).sum(axis=(1, 2))
        assert np.ptp(areas) < 0.04 * areas.mean()  # nothing is cut off or covered on the way


@pytest.mark.parametrize("clip", [*CLIPS, ClipShape(2, 64, 64), ClipShape(33, 64, 64)], ids=str)
def test_straight_paths_go_the_named_way_for_a_third_of_the_side(clip):
    motions = set()
    for index in range(60):
        sample = draw(DEMO, clip, 1, index, "train")
        moved = (centre(sample.frames[-1]) - centre(sample.frames[0])) / min(clip.height, clip.width)
        along = moved @ np.array(DIRECTIONS[sample.attributes.motion])
        assert sample.attributes.motion == "still" or 0.29 < along < 0.41
        assert np.abs(moved - along * np.array(DIRECTIONS[sample.attributes.motion])).max() < 0.01
        motions.add(sample.attributes.motion)
    assert motions == set(DEMO.motions)


def test_circling_comes_round_at_one_distance():
    world = World(counts=(1, 2), motions=("circling",))
    for index in range(20):
        path = np.array([centre(frame) for frame in draw(world, ClipShape(16, 64, 64), 0, index, "train").frames]) / 64
        radii = np.linalg.norm(path - path.mean(axis=0), axis=1)
        assert radii.min() > 0.11 and np.ptp(radii) < 0.01
        steps = np.linalg.norm(np.diff(path, axis=0, append=path[:1]), axis=1)
        assert np.ptp(steps) < 0.01  # the step from the last frame to the first too


def test_colours_fill_objects_and_backgrounds_are_grey():
    for index in range(30):
        sample = draw(World(), CLIP, 2, index, "validation")
        colour = np.array(COLOURS[sample.attributes.colour])
        assert (np.abs(sample.frames.astype(int) - colour).max(axis=-1) <= 1).any(axis=(1, 2)).all()
        assert np.mean(chroma(sample.frames) == 0) > 0.6


@pytest.mark.parametrize(
    ("shape", "area", "high", "wide"),
    [
        ("circle", np.pi, 2, 2),
        ("square", 3.098, 1.76, 1.76),
        ("triangle", 1.997, 1.86, 2.147),
        ("cross", 2.614, 2.1, 2.1),
    ],
)
def test_coverage_is_the_area_under_each_pixel(shape, area, high, wide):
    radius, grid = 20.0, np.arange(80) - 39.3
    covered = coverage(shape, grid[:, None], grid, radius)
    assert covered.sum() / radius**2 == pytest.approx(area, rel=0.01)
    assert (covered > 0.5).any(axis=1).sum() / radius == pytest.approx(high, abs=0.11)
    assert (covered > 0.5).any(axis=0).sum() / radius == pytest.approx(wide, abs=0.11)
    assert shape in SHAPES and ((covered > 0) & (covered < 1)).any()


def test_one_frame_shows_still_objects_of_the_same_split():
    for split in ("train", "test"):
        samples = [draw(World(), ClipShape(1, 32, 48), 0, index, split) for index in range(30)]
        contents = {tuple(getattr(sample.attributes, name) for name in ATTRIBUTES) for sample in samples}
        assert {motion for *_, motion in contents} == {"still"} and contents <= set(combinations(World(), split))
        assert samples[0].frames.shape == (1, 32, 48, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: from_mapping(World, {"shapes": ("circle", "star")}),
            r"shapes\[1\]=star: use circle or square or triangle or cross",
        ),
        (lambda: World(counts=(1, 4)), r"counts\[1\]=4: use a whole number from 1 to 3"),
        (lambda: World(backgrounds=()), "world.backgrounds must name one value or more"),
        (lambda: World(colours=("red", "red")), "each once"),
        (lambda: World((1,), ("red",), ("circle",), ("left", "right")), "too few values"),
        (lambda: World((1,), ("red",), ("circle",), ("left",)), "too few values"),
        (lambda: draw(World(), CLIP, 0, 0, "dev"), "no split 'dev'; there are train, validation, test"),
        (lambda: draw(World(), ClipShape(5, 64, 24), 0, 0, "train"), "5x64x24 is too small"),
        (lambda: draw(World(motions=("left", "up")), ClipShape(1, 64, 64), 0, 0, "train"), "one-frame clip"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_every_known_value_can_be_drawn():
    for field, known in KNOWN.items():
        for value in known:
            sample = draw(World(**{field: (value,)}), ClipShape(2, 32, 32), 0, 0, "train")
            assert getattr(sample.attributes, field[:-1]) == value
