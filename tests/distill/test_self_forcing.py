"""Self-forcing: clips that a causal student makes chunk by chunk while it is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import distill
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.captioned import CaptionedLatents
from mobile_video_jax.distill.config import ObjectiveConfig
from mobile_video_jax.distill.self_forcing import Stream
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.stream import START, State, next_state, sample_chunk
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from tests.nets import normal, randomly

TEACHER = DitConfig(width=12, depth=1, heads=2, head_dim=6, ffn=16, time_features=8)
STUDENT = dataclasses.replace(TEACHER, layout=(("lcha", 1),), causal=True)
PLAIN = {"clip": "9x16x16", "compression": "t4_s8_c6", "text_width": 10, "text_tokens": 3}
STEPS = 2


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser(DenoiserConfig(**PLAIN, model=STUDENT))


@pytest.fixture(scope="module")
def params(denoiser) -> dict:
    return randomly(denoiser.parameter_shapes, 0.3)


def clips() -> CaptionedLatents:
    return CaptionedLatents(normal(0, 2, 3, 2, 2, 6), normal(1, 2, 3, 10), jnp.ones((2, 3), bool))


def test_the_students_clips_are_those_that_are_sampled_later(denoiser, params):
    noise, captions = normal(2, 2, 3, 2, 2, 6), clips()
    stream = Stream(denoiser.velocity_behind, denoiser.next_state, chunk=2)
    grid = time_grid(STEPS, shift=1.0)
    made = jax.jit(
        lambda p: stream.generate(p, captions, noise, grid, jax.random.key(0), last_step=STEPS - 1, solver="euler")
    )(params)
    config = SampleConfig(STEPS, guidance=1.0, shift=1.0, terminal=0.0, schedule="uniform")
    conditions = (captions.text, captions.text_mask, None)
    first, outputs = sample_chunk(denoiser, config, params, START, noise[:, :1], conditions)
    state = State(next_state(denoiser, config, params, START, first, conditions), outputs)
    second, _ = sample_chunk(denoiser, config, params, state, noise[:, 1:], conditions)
    np.testing.assert_allclose(made, jnp.concatenate([first, second], axis=1), atol=1e-4)


def stage(**changes) -> DistillStage:
    config = DistillTraining(
        **PLAIN,
        model=STUDENT,
        teacher_model=TEACHER,
        sampling_steps=STEPS,
        batch_size=2,
        caption_dropout=0.0,
        objective=ObjectiveConfig(method="dmd", guidance=2.0),
        solver="renoise",
    )
    return DistillStage(dataclasses.replace(config, **changes))


@pytest.mark.slow  # half a minute of compilation
def test_matching_trains_the_student_through_its_own_chunks_and_the_critic_on_them():
    student = stage()
    params = randomly(student.shapes, 0.3)
    batch = {"latents": clips().latents, "text": clips().text, "text_mask": clips().text_mask}

    @jax.jit
    def gradients(params):
        losses = ("all", "opponent")
        return [
            jax.grad(lambda p, trained=trained: student.loss(p, batch, jax.random.key(0), trained)[0])(params)
            for trained in losses
        ]

    both, alone = (
        {part: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree)) for part, tree in gradient.items()}
        for gradient in gradients(params)
    )
    assert both["generator"] > 0 and both["critic"] > 0 and both["teacher"] == 0
    assert alone["generator"] == 0 and alone["critic"] == pytest.approx(both["critic"], rel=1e-4)


def test_a_causal_student_takes_the_method_that_knows_streams():
    with pytest.raises(UserError, match="use a variant SIZE_self_forcing"):
        stage(objective=ObjectiveConfig(method="adversarial"))
    recipe = distill.get_config("tiny_self_forcing")
    assert (recipe.solver, recipe.objective.method, recipe.optimizer.generator_every) == ("renoise", "dmd", 5)
