"""The U-Net in the commands of the transformer: trained, sampled, and refused where only a transformer will do."""

from pathlib import Path

import pytest

import mobile_video_jax as mvj
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.run import prune
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.unet.config import UnetConfig
from tests import tiny

SMALL = UnetConfig(widths=(16,), residuals=(1,), blocks=(1,), head_dim=8, time_features=16)
IMAGE = "1x32x32"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("data") / "latents", clips=(IMAGE,))


@pytest.fixture(scope="module")
def model(data, tmp_path_factory) -> Path:
    """A finished run with random weights."""
    config = tiny.dit_config(data, clip=IMAGE, model=SMALL, text_tokens=16)
    return tiny.dit_run(tmp_path_factory.mktemp("runs") / "unet", config)


@pytest.mark.slow
def test_it_learns(data, tmp_path):
    config = tiny.dit_config(data, clip=IMAGE, model=SMALL, text_tokens=16, steps=8, eval_every=4, checkpoint_every=8)
    train(DitStage(config), tmp_path / "run")
    losses = [row["eval_loss"] for row in read_metrics(tmp_path / "run") if "eval_loss" in row]
    assert losses[-1] < losses[0]


def test_a_run_says_which_network_it_holds_and_generates_images(model):
    assert Run.open(model).denoiser.config.model == SMALL
    clips = mvj.load(str(model)).generate("a red circle", steps=2)
    assert clips.frames.shape == (1, 1, 32, 32, 3)


def test_pruning_units_takes_a_transformer(model, data, tmp_path):
    with pytest.raises(UserError, match="takes a transformer, not a network of family 'unet'"):
        prune(PruneConfig(clips=4, batch_clips=4), model, str(data), tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


def test_a_network_of_an_unknown_family_is_refused(data):
    values = plain(tiny.dit_config(data, model=SMALL))
    assert from_mapping(DitTraining, values).model == SMALL
    with pytest.raises(UserError, match=r"config\.model\.family is no key"):
        from_mapping(DitTraining, values | {"model": values["model"] | {"family": "mlp"}})
