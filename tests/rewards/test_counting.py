"""Guides to the right number of objects."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.shape_world import draw
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.generate.folder import GenerationJob, generate_folder
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import make_requests
from mobile_video_jax.models.run import Run
from mobile_video_jax.rewards.attention_guide import AttentionGuide
from mobile_video_jax.rewards.config import CriticConfig
from mobile_video_jax.rewards.count_guides import BestOf, CriticGuide
from mobile_video_jax.rewards.count_loss import count_loss, edit_of, object_maps
from mobile_video_jax.rewards.counter import wanted_count, word_position
from mobile_video_jax.rewards.guided_generator import GuidedGenerator
from mobile_video_jax.stages.config import CriticTraining
from mobile_video_jax.stages.critic import CriticStage
from tests import tiny
from tests.nets import randomly

CRITIC = CriticConfig(width=16, heads=2, blocks=1)
PROMPTS = ["two red squares moving left", "a green circle staying still"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Generator:
    folder = tmp_path_factory.mktemp("model")
    model = dataclasses.replace(tiny.DIT, width=32, heads=2, head_dim=16, ffn=32)
    return Generator.load(tiny.dit_run(folder / "dit", tiny.dit_config(folder, model=model)))


@pytest.fixture(scope="module")
def critic(tmp_path_factory) -> Run:
    config = CriticTraining(clip=tiny.CLIP, critic=CRITIC)
    params = randomly(CriticStage(config).shapes)
    return Run.open(tiny.run_of(tmp_path_factory.mktemp("critic") / "run", "critic", config, params))


def guided(generator: Generator, guide, critic: Run) -> np.ndarray:
    config = generator.sample_config(steps=4, guidance=2.0)
    return np.asarray(GuidedGenerator.of(generator, guide, critic).latents(make_requests(PROMPTS, 0, []), config))


@pytest.fixture(scope="module")
def plain(generator) -> np.ndarray:
    config = generator.sample_config(steps=4, guidance=2.0)
    return np.asarray(generator.latents(make_requests(PROMPTS, 0, []), config))


def test_guides_of_no_strength_are_plain_sampling_to_the_bit(generator, critic, plain):
    for guide in (CriticGuide(strength=0.0), BestOf(clips=1)):
        np.testing.assert_array_equal(guided(generator, guide, critic), plain)
    np.testing.assert_allclose(guided(generator, AttentionGuide(strength=0.0), critic), plain, atol=1e-5)


@pytest.mark.slow
def test_a_critics_gradient_raises_its_own_belief_in_the_number(generator, critic, plain):
    moved = guided(generator, CriticGuide(strength=0.3), critic)
    counter = GuidedGenerator.of(generator, CriticGuide(), critic).counter
    wanted = [wanted_count(prompt) for prompt in PROMPTS]
    believed = lambda latents: np.asarray(counter.compiled(jnp.asarray(latents)))[[0, 1], wanted]
    assert wanted == [1, 0] and np.all(believed(moved) > believed(plain))


def test_attention_guides_edit_wrong_counts_alone_and_inside_their_masks(generator, critic, plain, monkeypatch):
    edits = iter([(np.ones(plain.shape[1:4], bool), -2.0), (np.zeros(plain.shape[1:4], bool), 0.0)])
    monkeypatch.setattr("mobile_video_jax.rewards.attention_guide.edit_of", lambda *_: next(edits))
    moved = guided(generator, AttentionGuide(strength=0.5, low=0.2), critic)
    assert np.abs(moved[0] - plain[0]).max() > 1e-3
    np.testing.assert_allclose(moved[1], plain[1], atol=1e-5)


def test_masks_follow_the_objects_that_are_too_many_and_the_room_for_missing_ones():
    world = World(counts=(2,), shapes=("square",), motions=("left", "right", "up"), backgrounds=("dark",))
    frames = draw(world, ClipShape(9, 32, 32), 0, 1, "train").frames
    grid = (3, 8, 8)
    surplus, sign = edit_of(frames, 2, 1, grid)
    assert sign == 1 and surplus.any(axis=(1, 2)).all() and 0 < surplus.mean() < 0.2
    missing, sign = edit_of(frames, 2, 3, grid)
    coloured = np.ptp(frames.astype(int), axis=-1)[::4].reshape(3, 8, 4, 8, 4) > 48
    assert sign == -2 and missing.any(axis=(1, 2)).all() and not (missing & (coloured.mean((2, 4)) > 0.5)).any()
    assert edit_of(frames, 2, 2, grid)[1] == 0 and edit_of(np.zeros_like(frames), 0, 1, grid)[1] == 0


def test_the_loss_asks_attention_to_leave_the_surplus_and_to_come_to_the_place_of_what_is_missing():
    logits = jnp.zeros((2, 16, 3)).at[:, 5, 1].set(4.0)
    mask = np.zeros((2, 1, 4, 4), bool)
    mask[:, 0, 1, 1] = True

    def loss(logits):
        maps = object_maps(logits, jnp.array([1, 1]), (1, 4, 4))
        return jnp.sum(count_loss(maps, mask, jnp.array([1.0, -2.0])))

    gradient = jax.grad(loss)(logits)
    assert gradient[0, 5, 1] > 0 > gradient[1, 5, 1]
    np.testing.assert_allclose(gradient[1, :, 1], -2 * gradient[0, :, 1], rtol=1e-5)
    assert np.all(gradient[..., 0] == 0)


def test_what_a_guide_cannot_do_is_refused(generator, critic, tmp_path, monkeypatch):
    config = generator.sample_config(steps=2)
    guided_by = GuidedGenerator.of(generator, AttentionGuide(), critic)
    with pytest.raises(UserError, match="names no number of shapes"):
        guided_by.check(make_requests(["a dog"], 0, []), config)
    family = dataclasses.replace(generator.denoiser.family, cross_logits=None)
    monkeypatch.setattr(generator.denoiser, "family", family)
    with pytest.raises(UserError, match="no cross-attention to guide by"):
        guided_by.check(make_requests(PROMPTS, 0, []), config)
    with pytest.raises(UserError, match="name a run of configs/critic.py"):
        GuidedGenerator.of(generator, BestOf(), generator.run)


def test_samples_json_tells_the_guide_and_its_evaluations(generator, critic, tmp_path):
    guided_by = GuidedGenerator.of(generator, BestOf(), critic)
    job = GenerationJob(make_requests(PROMPTS, 0, []), generator.sample_config(steps=2, guidance=1.0), tmp_path / "out")
    generate_folder(guided_by, job)
    summary = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert summary["guide"] == {"name": "count_best", "clips": 2} and summary["evaluations_per_clip"] == 4


def test_the_word_that_a_guide_follows_is_the_shapes(generator):
    tokens = generator.text_encoder.tokenizer.encode(PROMPTS[0]).tokens
    assert tokens[word_position(generator, PROMPTS[0])].startswith("square")
