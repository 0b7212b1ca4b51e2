"""The transformer's objective and its batches of many shapes."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import token_shift
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.noisy_batch import noisy_batch
from mobile_video_jax.train import loop
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.run import check_run, open_run
from mobile_video_jax.train.sessions import read_sessions
from mobile_video_jax.train.step import make_step
from mobile_video_jax.vae.latent_stats import LatentStats
from tests import tiny
from tests.nets import normal, randomly

pytestmark = pytest.mark.first

SMALL = dataclasses.replace(tiny.DIT, width=48, heads=2, head_dim=24, ffn=96)
SHAPES = ("1x32x32", "5x32x64", "9x32x32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("data") / "latents", train=24, validation=24, clips=SHAPES)


def batch_of(frames: int, count: int = 4) -> dict:
    return {
        "latents": normal(0, count, frames, 4, 4, 6),
        "text": normal(1, count, 12, 384),
        "text_mask": jnp.asarray(np.arange(12) < np.arange(3, 3 + count)[:, None]),
    }


@pytest.fixture(scope="module")
def i2v_stage(folder) -> DitStage:
    """Training on clips whose first frame is given."""
    return DitStage(tiny.dit_config(folder, image_probability=1.0))


@pytest.fixture(scope="module")
def params(i2v_stage) -> dict:
    return randomly(jax.eval_shape(i2v_stage.init, jax.random.key(0)), 0.05)


def velocity_errors(stage: DitStage, params: dict, batch: dict, times: jax.Array) -> np.ndarray:
    @jax.jit
    def errors(params: dict, batch: dict, times: jax.Array) -> jax.Array:
        noisy = noisy_batch(batch, times, batch["text"], batch["text_mask"], jax.random.key(1))
        return noisy.errors(apply(stage.denoiser.network, params, *noisy.inputs))

    return np.asarray(errors(params, batch, times))


@pytest.mark.slow
def test_training_on_buckets_compiles_each_once_and_goes_on_exactly(tmp_path, monkeypatch):
    clips, programs = ("1x32x32", "9x32x32"), []
    folder = tiny.latents(tmp_path / "latents", train=24, validation=24, clips=clips)
    monkeypatch.setattr(loop, "make_step", lambda *args: programs.append(make_step(*args)) or programs[-1])
    changes = {"image_share": 0.3, "image_probability": 0.5, "model": SMALL}
    stage, run = DitStage(tiny.dit_config(folder, steps=8, eval_every=8, **changes)), tmp_path / "run"
    train(stage, run)
    assert programs[0]._cache_size() == len(clips)
    unbroken = read_metrics(run)
    shutil.rmtree(run / "checkpoints" / "8")  # as if it had not come to the last save
    train(stage, run)
    losses = [[line["loss"] for line in lines] for lines in (unbroken, read_metrics(run))]
    assert losses[0] == losses[1] and len(losses[1]) == 8
    assert [session["steps"] for session in read_sessions(run)] == [[0, 8], [4, 8]]
    assert {"eval_loss", "eval_image_loss"} <= unbroken[-1].keys()


def test_a_batch_holds_as_many_clips_as_its_tokens_allow(folder):
    stage = DitStage(tiny.dit_config(folder))
    sizes = [stage.batch_size(ClipShape.parse(text)) for text in (*SHAPES, "9x64x64")]
    assert sizes == [24, 6, 8, 2]  # 8 clips of 9x32x32 have 384 tokens
    stage = DitStage(tiny.dit_config(folder, token_budget=100))
    assert [stage.batch_size(ClipShape.parse(text)) for text in SHAPES] == [6, 1, 2]
    stage = DitStage(tiny.dit_config(folder, token_budget=40))
    with pytest.raises(UserError, match=r"40 tokens holds no 1 clips of 9x32x32, 48 tokens each: set token_budget"):
        stage.batch_size(ClipShape.parse("9x32x32"))


def test_a_padded_batch_has_the_loss_of_the_unpadded(folder, params):
    stage = DitStage(tiny.dit_config(folder))
    batch, t = batch_of(2), jnp.array([0.2, 0.4, 0.6, 0.8])
    noise = normal(2, 4, 3, 4, 4, 6)
    mask = jnp.asarray(np.broadcast_to(np.array([True, True, False])[:, None, None], (4, 3, 4, 4)))
    padded = {**batch, "latents": jnp.asarray(np.pad(batch["latents"], [(0, 0), (0, 1), *[(0, 0)] * 3]))}
    errors = []
    for each, frames in ((batch, 2), (padded | {"latent_mask": mask}, 3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.random, "normal", lambda *_, frames=frames: noise[:, :frames])
            errors.append(velocity_errors(stage, params, each, t))
    np.testing.assert_allclose(*errors, rtol=1e-5)


def test_a_given_frame_is_seen_clean_and_not_noisy_for(i2v_stage, params):
    """Its velocity error does not count, and what it shows changes the error of the others."""
    batch, times = batch_of(3), jnp.array([[0.0, 0.5, 0.5]] * 4)
    shift = np.array([3, 0, 0], np.float32)[:, None, None, None]
    moved = {**batch, "latents": jnp.asarray(batch["latents"] + shift)}
    changes = velocity_errors(i2v_stage, params, moved, times) - velocity_errors(i2v_stage, params, batch, times)
    # The fresh head is linear in x_t: an unseen frame would leave the error of the others as it is.
    assert np.all(np.abs(changes) > 1e-6)
    zero = jax.tree.map(np.zeros_like, params)  # predicts 0 everywhere, which errs on the frames noisy for alone
    noisy = [velocity_errors(i2v_stage, zero, each, times) for each in (batch, moved)]
    np.testing.assert_allclose(*noisy, rtol=1e-6)


def test_images_are_never_given_to_themselves(i2v_stage, params):
    mask = jnp.asarray(np.broadcast_to(np.array([True, False, False])[:, None, None], (4, 3, 4, 4)))
    for batch in (batch_of(1), {**batch_of(3), "latent_mask": mask}):
        loss, _ = jax.jit(i2v_stage.loss)(params, batch, jax.random.key(0))
        assert np.isfinite(loss) and loss > 0


def test_the_shift_may_follow_the_tokens(folder):
    assert DitStage(tiny.dit_config(folder, time_shift=3.0)).denoiser.time_shift(1344) == 3.0
    following = DitStage(tiny.dit_config(folder, shift_follows_tokens=True))
    assert following.denoiser.time_shift(1344) == token_shift(1344) > following.denoiser.time_shift(48)


def test_data_sets_train_together_unless_their_latents_are_others(folder, tmp_path):
    images = tiny.latents(tmp_path / "images", clips=["1x32x64"])
    both = DitStage(tiny.dit_config(f"{folder},{images}"))
    mesh = make_mesh(MeshConfig())
    assert len({batch["latents"].shape for batch in itertools.islice(both.train_batches(mesh), 40)}) == 4
    LatentStats((0.3,) * 6, (0.5,) * 6).save(images / "vae")
    with pytest.raises(UserError, match="were encoded by two VAEs: encode both with one"):
        DitStage(both.config).train_batches(mesh)


@pytest.mark.slow
def test_each_phase_of_growth_starts_from_the_one_before(folder, tmp_path):
    """Images, then clips: the second phase starts below a fresh model's loss, which is 1 + the latents' power."""
    images = tiny.latents(tmp_path / "images", clips=["1x32x32"], train=64)
    sparing = {"eval_every": 15, "checkpoint_every": 15, "model": SMALL}
    first = tiny.dit_config(images, clip="1x32x32", steps=15, **sparing)
    train(DitStage(first), tmp_path / "images_run")
    video = tiny.dit_config(tiny.latents(tmp_path / "clips", train=64), steps=1, **sparing)
    train(DitStage(video), tmp_path / "fresh")
    train(DitStage(dataclasses.replace(video, init_from=str(tmp_path / "images_run"))), tmp_path / "grown")
    fresh, grown = (read_metrics(tmp_path / run)[0]["loss"] for run in ("fresh", "grown"))
    assert grown < 0.8 * fresh


def test_a_run_of_older_code_goes_on_where_it_lacks_keys_that_came_since(tmp_path):
    config = tiny.dit_config(tmp_path)
    open_run(tmp_path / "run", config, {})
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["config"]["time_terminal"], record["config"]["lora"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    save_model(tmp_path / "run", 1, {"w": jnp.zeros(1)})
    check_run(tmp_path / "run", config)
    with pytest.raises(UserError, match="time_terminal=0.0, this config has 0.1"):
        check_run(tmp_path / "run", dataclasses.replace(config, time_terminal=0.1))


@pytest.mark.slow
def test_some_tokens_are_left_out_in_training_alone(folder):
    """The held-out loss is that of the whole network; steps cost less, and what they leave out is random."""
    config = tiny.dit_config(folder, model=dataclasses.replace(SMALL, depth=5))
    whole, sparse = DitStage(config), DitStage(dataclasses.replace(config, token_drop=0.75))
    params, batch = randomly(jax.eval_shape(whole.init, jax.random.key(0)), 0.05), batch_of(3) | {"weight": jnp.ones(4)}
    step = jax.jit(lambda rng: sparse.loss(params, batch, rng)[0] - whole.loss(params, batch, rng)[0])
    differences = [float(step(jax.random.key(i))) for i in range(2)]
    assert all(differences) and differences[0] != differences[1]
    evaluated = [stage.evaluate_batch(params, batch, jax.random.key(0))["loss"] for stage in (whole, sparse)]
    assert evaluated[0] == evaluated[1]
    assert sparse.cost(1).flops < 0.95 * whole.cost(1).flops
