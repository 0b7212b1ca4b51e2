"""The transformer's objective and its batches of many shapes."""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import token_shift
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.step import make_step
from mobile_video_jax.vae.latent_stats import LatentStats
from tests import tiny

SHAPES = ("1x32x32", "5x32x64", "9x32x32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("data") / "latents", train=24, validation=24, clips=SHAPES)


def batch_of(frames: int, count: int = 4) -> dict:
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "latents": jax.random.normal(keys[0], (count, frames, 4, 4, 6)),
        "text": jax.random.normal(keys[1], (count, 12, 384)),
        "text_mask": jnp.arange(12)[None, :] < jnp.arange(3, 3 + count)[:, None],
    }


def noisy(stage: DitStage) -> dict:
    return jax.tree.map(lambda x: x + 0.02, nn.unbox(stage.init(jax.random.key(0))))


def test_training_on_buckets_compiles_each_once_and_goes_on_exactly(folder, tmp_path, monkeypatch):
    programs = []
    monkeypatch.setattr(
        "mobile_video_jax.train.loop.make_step", lambda *args: programs.append(make_step(*args)) or programs[-1]
    )
    config = tiny.dit_config(folder, image_share=0.3, image_probability=0.5)
    train(DitStage(config), tmp_path / "whole")
    assert programs[0]._cache_size() == len(SHAPES)
    half = dataclasses.replace(config, steps=8, optimizer=dataclasses.replace(config.optimizer, schedule="constant"))
    whole = dataclasses.replace(half, steps=12)
    train(DitStage(whole), tmp_path / "unbroken")
    train(DitStage(half), tmp_path / "broken")
    train(DitStage(whole), tmp_path / "broken")
    losses = [[line["loss"] for line in read_metrics(tmp_path / run)] for run in ("unbroken", "broken")]
    assert losses[0] == losses[1] and len(losses[1]) == 12
    assert {"eval_loss", "eval_image_loss"} <= read_metrics(tmp_path / "whole")[-1].keys()


def test_a_batch_holds_as_many_clips_as_its_tokens_allow(folder):
    stage = DitStage(tiny.dit_config(folder))
    sizes = [stage.batch_size(ClipShape.parse(text)) for text in (*SHAPES, "9x64x64")]
    assert sizes == [24, 6, 8, 2]  # 8 clips of 9x32x32 have 384 tokens
    stage = DitStage(tiny.dit_config(folder, token_budget=100))
    assert [stage.batch_size(ClipShape.parse(text)) for text in SHAPES] == [6, 1, 2]
    stage = DitStage(tiny.dit_config(folder, token_budget=40))
    with pytest.raises(UserError, match=r"40 tokens holds no 1 clips of 9x32x32, 48 tokens each: set token_budget"):
        stage.batch_size(ClipShape.parse("9x32x32"))


def test_a_padded_batch_has_the_loss_of_the_unpadded(folder):
    stage = DitStage(tiny.dit_config(folder))
    params, batch, t = noisy(stage), batch_of(2), jnp.array([0.2, 0.4, 0.6, 0.8])
    rng, text = jax.random.key(1), (batch["text"], batch["text_mask"])
    noise = jax.random.normal(jax.random.key(2), (4, 3, 4, 4, 6))
    mask = jnp.broadcast_to(jnp.array([True, True, False])[:, None, None], (4, 3, 4, 4))
    padded = {**batch, "latents": jnp.pad(batch["latents"], [(0, 0), (0, 1), *[(0, 0)] * 3]), "latent_mask": mask}
    errors = []
    for each, frames in ((batch, 2), (padded, 3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.random, "normal", lambda *_, frames=frames: noise[:, :frames])
            errors.append(stage._velocity_errors(params, each, t, *text, rng))
    np.testing.assert_allclose(*errors, rtol=1e-5)


def test_a_given_frame_is_seen_clean_and_not_asked_for(folder):
    """Its velocity error does not count, and what it shows changes the error of the others."""
    stage = DitStage(tiny.dit_config(folder, image_probability=1.0))
    params, batch = noisy(stage), batch_of(3)
    rng, text = jax.random.key(1), (batch["text"], batch["text_mask"])
    times = jnp.array([[0.0, 0.5, 0.5]] * 4)
    velocity = stage._velocity_errors(params, batch, times, *text, rng)
    moved = {**batch, "latents": batch["latents"].at[:, 0].add(3.0)}
    # The fresh head is linear in x_t: an unseen frame would leave the error of the others as it is.
    assert np.all(np.abs(stage._velocity_errors(params, moved, times, *text, rng) - velocity) > 1e-6)
    zero = jax.tree.map(jnp.zeros_like, params)  # predicts 0 everywhere, which errs on the frames asked for alone
    asked = [stage._velocity_errors(zero, each, times, *text, rng) for each in (batch, moved)]
    np.testing.assert_allclose(*asked, rtol=1e-6)


def test_images_are_never_given_to_themselves(folder):
    stage = DitStage(tiny.dit_config(folder, image_probability=1.0))
    loss, _ = stage.loss(noisy(stage), batch_of(1), jax.random.key(0))
    assert np.isfinite(loss) and loss > 0
    mask = jnp.zeros((4, 3, 4, 4), bool).at[:, 0].set(True)
    loss, _ = stage.loss(noisy(stage), {**batch_of(3), "latent_mask": mask}, jax.random.key(0))
    assert np.isfinite(loss) and loss > 0


def test_the_shift_may_follow_the_tokens(folder):
    assert DitStage(tiny.dit_config(folder, time_shift=3.0)).time_shift(1344) == 3.0
    following = DitStage(tiny.dit_config(folder, shift_follows_tokens=True))
    assert following.time_shift(1344) == token_shift(1344) > following.time_shift(48)


def test_data_sets_train_together_unless_their_latents_are_others(folder, tmp_path):
    images = tiny.latents(tmp_path / "images", clips=["1x32x64"])
    both = DitStage(tiny.dit_config(f"{folder},{images}"))
    assert len({batch["latents"].shape for batch, _ in zip(both.train_batches(), range(40), strict=False)}) == 4
    LatentStats((0.3,) * 6, (0.5,) * 6).save(images / "vae")
    with pytest.raises(UserError, match="were encoded by two VAEs: encode both with one"):
        both.train_batches()


def test_each_phase_of_growth_starts_from_the_one_before(folder, tmp_path):
    """Images, then clips: the second phase starts below a fresh model's loss, which is 1 + the latents' power."""
    images = tiny.latents(tmp_path / "images", clips=["1x32x32"], train=64)
    first = tiny.dit_config(images, clip="1x32x32", steps=60)
    train(DitStage(first), tmp_path / "images_run")
    video = tiny.dit_config(tiny.latents(tmp_path / "clips", train=64), steps=2)
    train(DitStage(video), tmp_path / "fresh")
    train(DitStage(dataclasses.replace(video, init_from=str(tmp_path / "images_run"))), tmp_path / "grown")
    fresh, grown = (read_metrics(tmp_path / run)[0]["loss"] for run in ("fresh", "grown"))
    assert grown < 0.8 * fresh
