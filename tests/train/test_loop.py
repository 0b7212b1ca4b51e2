"""The training loop: what it logs, how it stops, and how it goes on."""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.divergence import TrainingDiverged
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.sessions import read_sessions
from mobile_video_jax.train.step import gradients
from tests import tiny
from tests.nets import randomly


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    summary = train(DitStage(tiny.dit_config(data)), run)
    assert summary["step"] == 12 and summary["workdir"] == str(run) and np.isfinite(summary["loss"])
    return run


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run)]


def test_the_loss_falls_and_every_step_is_logged_once(finished):
    lines = read_metrics(finished)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["eval_loss"] < lines[5]["eval_loss"]


def test_a_run_directory_describes_itself(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["stage"] == "dit" and record["config"]["model"]["width"] == 192
    assert record["description"]["latent_shape"] == [3, 4, 4, 6]
    assert record["versions"]["jax"] and record["revision"]
    assert (finished / "vae" / "latents.json").exists() and any((finished / "tensorboard").iterdir())


def test_a_stopped_run_goes_on_with_the_same_losses_to_the_bit(data, finished, tmp_path):
    class Stop(Exception):
        pass

    class StopAtSeven(DitStage):
        def eval_batches(self, mesh):
            if self.config.eval_every == 7:
                raise Stop
            return super().eval_batches(mesh)

    # The crash at step 7 loses what came after the save at step 4.
    with pytest.raises(Stop):
        train(StopAtSeven(tiny.dit_config(data, eval_every=7)), tmp_path / "run")
    train(DitStage(tiny.dit_config(data)), tmp_path / "run")
    assert losses(tmp_path / "run") == losses(finished)


def test_a_finished_run_started_again_changes_nothing(data, finished):
    before = losses(finished)
    again = train(DitStage(tiny.dit_config(data)), finished)
    assert again["step"] == 12 and again["loss"] == before[-1]
    assert losses(finished) == before


def test_accumulated_gradients_equal_those_of_the_whole_batch(data):
    class WithoutNoise(DitStage):
        def loss(self, params, batch, rng):
            x, t = batch["latents"], jnp.full(len(batch["latents"]), 0.5)
            velocity = self.denoiser.velocity(params, x, t, batch["text"], batch["text_mask"])
            return jnp.mean((velocity - x) ** 2), {}

    stage, key = WithoutNoise(tiny.dit_config(data)), jax.random.key(0)
    batch = next(iter(stage.train_batches(make_mesh(MeshConfig()))))
    batch = {name: jnp.asarray(value) for name, value in batch.items() if name != "record"}
    params = randomly(jax.eval_shape(stage.init, key), 0.05)
    compiled = jax.jit(gradients, static_argnums=(0, 1, 5))
    whole, parts = (compiled(stage, stage.loss, params, batch, key, accumulate) for accumulate in (1, 4))
    # float32 sums in another order: some leaves (key biases) have a true gradient of zero and hold only rounding.
    rounding = 1e-6 * max(float(jnp.abs(a).max()) for a in jax.tree.leaves(whole))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4 * float(jnp.abs(a).max()) + rounding)


def test_a_batch_that_cannot_be_accumulated_is_refused(data, tmp_path):
    optimizer = dataclasses.replace(tiny.OPTIMIZER, accumulate=3)
    with pytest.raises(UserError, match="batch_size 8 does not divide by accumulate 3"):
        train(DitStage(tiny.dit_config(data, optimizer=optimizer)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_another_runs_weights(data, finished, tmp_path):
    config = tiny.dit_config(data, init_from=str(finished), steps=6)
    train(DitStage(config), tmp_path / "run")
    assert losses(tmp_path / "run")[0] < 0.9 * losses(finished)[0]


DIVERGING = dataclasses.replace(tiny.OPTIMIZER, learning_rate=10.0, weight_decay=1e6, warmup=0.0)


def test_losses_that_are_not_finite_stop_the_run_and_name_step_and_records(data, tmp_path):
    message = r"at step \d+, batch records \[\d+(, \d+){7}\], the 4th step in a row that cannot be taken"
    with pytest.raises(TrainingDiverged, match=message) as ended:
        train(DitStage(tiny.dit_config(data, optimizer=DIVERGING)), tmp_path / "run")
    assert ended.value.status == 3 and read_sessions(tmp_path / "run")[-1]["ended"] == "diverged"


class Poisoned(DitStage):
    """A stage whose loss is NaN for the batch whose latents have a certain sum."""

    poison: float

    def loss(self, params, batch, rng):
        loss, metrics = super().loss(params, batch, rng)
        return jnp.where(jnp.abs(jnp.sum(batch["latents"]) - self.poison) < 0.01, jnp.nan, loss), metrics


def test_a_poisoned_batch_is_skipped_counted_and_changes_no_weight(data, tmp_path, capsys):
    stage = Poisoned(tiny.dit_config(data, steps=4, eval_every=0))
    batches = itertools.islice(stage.train_batches(make_mesh(MeshConfig())), 4)
    stage.poison = [float(batch["latents"].sum()) for batch in batches][2]
    train(stage, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert "step 3 is skipped (1 in a row): loss is nan" in capsys.readouterr().err
    assert [line["skipped_steps"] for line in lines] == [0, 0, 1, 1]
    assert lines[2]["loss"] == lines[1]["loss"] and np.isfinite(lines[3]["loss"])


def test_a_run_of_another_config_is_refused_by_its_key(data, finished):
    model = dataclasses.replace(tiny.DIT, ffn=96)
    with pytest.raises(UserError, match=r"was trained with model\.ffn=384, this config has 96"):
        train(DitStage(tiny.dit_config(data, model=model)), finished)


def test_what_fails_before_the_first_checkpoint_locks_no_folder(data, tmp_path):
    run = tmp_path / "run"

    class Unbuildable(DitStage):
        def loss(self, params, batch, rng):
            raise UserError("this loss takes other shapes")

    with pytest.raises(UserError, match="other shapes"):
        train(Unbuildable(tiny.dit_config(data, seed=1)), run)
    assert not run.exists()
    with pytest.raises(TrainingDiverged):
        train(DitStage(tiny.dit_config(data, optimizer=DIVERGING, checkpoint_every=100)), run)
    assert json.loads((run / "run.json").read_text())["config"]["optimizer"]["learning_rate"] == 10.0
    train(DitStage(tiny.dit_config(data, steps=2)), run)
    assert json.loads((run / "run.json").read_text())["config"]["optimizer"]["learning_rate"] == 1e-2
    assert [line["step"] for line in read_metrics(run)] == [1, 2] and (run / "vae" / "latents.json").exists()


@pytest.mark.slow
def test_more_steps_keep_the_schedule_unless_another_is_named(data, tmp_path, capsys):
    run, config = tmp_path / "run", tiny.dit_config(data, steps=4, checkpoint_every=2)
    train(DitStage(config), run)
    train(DitStage(dataclasses.replace(config, steps=6)), run)
    rates = [line["learning_rate"] for line in read_metrics(run)]
    assert rates[1] > rates[2] > rates[3] > rates[4] == rates[5] == 0
    assert "the linear schedule ends at step 4" in capsys.readouterr().err
    stretched = dataclasses.replace(config.optimizer, schedule_steps=8)
    train(DitStage(dataclasses.replace(config, steps=8, optimizer=stretched)), run)
    assert read_metrics(run)[6]["learning_rate"] > 0


@pytest.mark.slow
def test_a_resumed_run_takes_another_rate_where_that_is_said_and_records_it(data, tmp_path):
    run, config = tmp_path / "run", tiny.dit_config(data, steps=2, eval_every=0)
    train(DitStage(config), run)
    lower = dataclasses.replace(config.optimizer, learning_rate=1e-3, accumulate=2)
    model = dataclasses.replace(config.model, remat="full")
    slower = DitStage(dataclasses.replace(config, steps=4, optimizer=lower, model=model))
    with pytest.raises(
        UserError, match=r"learning_rate=0\.01, this config has 0\.001.*--override=optimizer\.learning_rate"
    ):
        train(slower, run)
    with pytest.raises(UserError, match="name optimizer.KEY with a KEY of learning_rate"):
        train(slower, run, overrides=["optimizer.name"])
    train(slower, run, overrides=["optimizer.learning_rate"])
    record = json.loads((run / "run.json").read_text())
    assert record["overrides"] == [{"step": 2, "key": "optimizer.learning_rate", "before": 0.01, "value": 0.001}]
    train(slower, run)  # without a word, as it is the run's rate now


def test_a_position_in_batches_of_other_sizes_is_refused(data, tmp_path):
    class OnOtherChips(DitStage):
        def batch_sizes(self):
            return {"9x32x32": 4}

    config = tiny.dit_config(data, steps=1, eval_every=0)
    train(DitStage(config), tmp_path / "run")
    with pytest.raises(UserError, match=r"in batches of \{'9x32x32': 8\} clips, here they are \{'9x32x32': 4\}"):
        train(OnOtherChips(dataclasses.replace(config, steps=2)), tmp_path / "run")


def test_a_folder_with_other_things_in_it_is_refused(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        train(DitStage(tiny.dit_config(data)), tmp_path)


@pytest.mark.parametrize("damage", ["empty", "garbage"])
def test_an_only_checkpoint_that_is_damaged_is_named(data, tmp_path, damage):
    config = tiny.dit_config(data, steps=4)
    train(DitStage(config), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"" if damage == "empty" else b"garbage")
    with pytest.raises(UserError, match=r"checkpoints/4 is damaged"):
        train(DitStage(tiny.dit_config(data)), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": "17x32x32"}, "was encoded with clip=9x32x32, the config has 17x32x32"),
        ({"compression": "t4_s8_c8"}, "was encoded with compression=t4_s8_c6"),
        ({"text_encoder": "t5"}, "was encoded with text_encoder=minilm"),
        ({"text_tokens": 4}, "tokens"),
        ({"batch_size": 64}, "fewer than one batch of 64"),
        ({"data": "/nowhere"}, "is no finished encoded data set"),
        ({"data": ""}, "no data set is named: use --config.data=DIR"),
    ],
)
def test_data_that_does_not_fit_is_refused(data, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train(DitStage(dataclasses.replace(tiny.dit_config(data), **change)), tmp_path / "run")
