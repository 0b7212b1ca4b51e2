"""Questions of captions, the small critic, and fine-tuning by it through the decoder."""

import dataclasses
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.shape_world import WORDINGS, Attributes, caption
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.models.run import Run
from mobile_video_jax.rewards import easy_vqa_images
from mobile_video_jax.rewards.config import Aspect, CriticConfig, TuningConfig
from mobile_video_jax.rewards.questions import answer_index, question_arrays, questions_of, word_numbers
from mobile_video_jax.rewards.vqa import Vqa
from mobile_video_jax.stages.config import CriticTraining, RewardTuning
from mobile_video_jax.stages.critic import CriticStage
from mobile_video_jax.stages.reward_tuning import RewardTuningStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from tests import tiny
from tests.nets import normal, randomly

ASPECTS = get_args(Aspect)
MODEL = dataclasses.replace(tiny.DIT, width=32, depth=1, heads=2, head_dim=16, ffn=32)
CRITIC = CriticConfig(width=16, heads=2, blocks=1, chunk=4)


@pytest.mark.parametrize("wording", range(len(WORDINGS)))
@pytest.mark.parametrize("motion", ["left", "up", "still", "circling"])
def test_captions_are_asked_about_what_they_say(wording, motion):
    text = caption(Attributes(2 if wording else 1, "cyan", "cross", motion, "dark"), wording)
    count, colour, shape, moves, whole, keeps, sharp = questions_of(text, ASPECTS)
    assert [q.answer for q in (colour, shape, moves)] == ["cyan", "cross", motion]
    assert count.answer == ("two" if wording else "one") and text in whole.text
    assert [q.aspect for q in (whole, keeps, sharp)] == ["alignment", "physics", "quality"]


def test_other_captions_are_asked_about_as_a_whole_and_unknown_answers_are_refused():
    assert [q.text for q in questions_of("A dog runs.", ("alignment",))] == ["does the video show a dog runs?"]
    with pytest.raises(UserError, match="'seven' is no answer of the critic"):
        answer_index("seven")
    with pytest.raises(UserError, match="7 questions, the batch room for 6"):
        question_arrays(questions_of("a red square moving left", ASPECTS), 6)
    assert len(set(word_numbers("how many red circles")[:4].tolist())) == 4


def test_frames_read_in_chunks_give_what_all_give_with_gradients():
    video, words = normal(0, 2, 9, 16, 16, 3), jnp.asarray(word_numbers("is it sharp"))[None, None].repeat(2, 0)
    chunked, whole = Vqa(CRITIC), Vqa(dataclasses.replace(CRITIC, chunk=0))
    params = randomly(jax.eval_shape(lambda: chunked.init(jax.random.key(0), video, words)))

    def answer(vqa: Vqa):
        return jax.jit(jax.value_and_grad(lambda x: vqa.log_probabilities(params, x, words)[:, 0, 0].sum()))(video)

    for a, b in zip(answer(chunked), answer(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_easy_vqa_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "easy_vqa", None)
    with pytest.raises(UserError, match=r"easy-vqa is not installed: pip install -e '.\[critic\]'"):
        easy_vqa_images.read_easy_vqa("train", 16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def critic(folder) -> Path:
    world = World(counts=(1,), colours=("red", "green"), shapes=("square", "circle"), motions=("left", "still"))
    sizes = {"train": 8, "validation": 4}
    prepare("moving_shapes", folder / "clips", world=world, clip=ClipShape.parse(tiny.CLIP), sizes=sizes)
    config = CriticTraining(
        data=str(folder / "clips"),
        critic=CRITIC,
        steps=2,
        batch_size=4,
        eval_every=2,
        optimizer=tiny.OPTIMIZER,
        log_every=1,
    )
    train(CriticStage(config), folder / "critic")
    return folder / "critic"


@pytest.fixture(scope="module")
def tuning(folder, critic) -> RewardTuning:
    data = tiny.latents(folder / "latents", train=4, validation=4)
    base = tiny.dit_run(folder / "dit", tiny.dit_config(data, model=MODEL))
    reward = TuningConfig(run=str(critic), steps=3, guidance=1.0, alternate=False)
    shared = {"steps": 1, "eval_every": 1, "batch_size": 4, "eval_batches": 1, "log_every": 1}
    return RewardTuning(init_from=str(base), data=str(data), reward=reward, optimizer=tiny.OPTIMIZER, **shared)


def test_a_critic_is_a_run_evaluated_question_by_question(critic):
    last = read_metrics(critic)[-1]
    assert {"eval_accuracy_count", "eval_accuracy_keeps", "eval_accuracy_sharp", "accuracy"} <= last.keys()


def test_the_gradient_flows_through_the_decoder_into_the_last_steps_alone(tuning):
    def gradient(grad_steps: int):
        reward = dataclasses.replace(tuning.reward, grad_steps=grad_steps)
        stage = RewardTuningStage.build(dataclasses.replace(tuning, reward=reward))
        batch = {name: jnp.asarray(np.ones(shape.shape), shape.dtype) for name, shape in stage.abstract_batch().items()}
        params = randomly(stage.shapes)
        return jax.jit(jax.grad(lambda p: stage.reward_loss(p, batch, jax.random.key(0))[0]))(params)

    largest = lambda tree: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
    assert largest(gradient(0)) == 0
    one = gradient(1)
    assert largest(one["generator"]) > 0 == largest(one["reward"])


@pytest.mark.slow
def test_a_model_is_tuned_by_a_critic(tuning, tmp_path):
    train(RewardTuningStage.build(tuning), tmp_path / "tuned")
    assert {"reward", "eval_reward"} <= read_metrics(tmp_path / "tuned")[-1].keys()
    assert Run.open(tmp_path / "tuned").denoiser.config.model == MODEL


def test_a_run_that_is_no_reward_is_refused(tuning):
    for run, message in ((tuning.init_from, "is of stage 'dit': name a run of"), ("", "name a run of")):
        reward = dataclasses.replace(tuning.reward, run=run)
        with pytest.raises(UserError, match=message):
            RewardTuningStage.build(dataclasses.replace(tuning, reward=reward))
