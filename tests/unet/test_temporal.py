"""The U-Net's layers over time: what frames see of each other, what images skip, and what is trained."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.unet.model import Unet
from mobile_video_jax.unet.temporal import LAYERS, TemporalLayers
from tests import tiny
from tests.nets import normal, params_like, run
from tests.unet.test_model import INPUTS, SMALL

KINDS = ("conv1d", "conv3d", "attention3d", "cross", "none", "attention1d", "conv1d")
GROWN = dataclasses.replace(SMALL, temporal=KINDS)


@pytest.fixture(scope="module")
def params() -> dict:
    return params_like(Unet(GROWN), *INPUTS)


def test_fresh_layers_change_nothing():
    def results(x):
        return [TemporalLayers(kind, 1, SMALL).init_with_output(jax.random.key(0), x)[0] for kind in LAYERS]

    x = normal(0, 1, 3, 2, 2, 16)
    assert all((np.asarray(y) == x).all() for y in jax.jit(results)(x))


def test_frames_see_each_other_and_no_padding(params):
    latents, *rest = INPUTS
    mask = jnp.ones(latents.shape[:4], bool).at[1, 2].set(False)
    whole = run(Unet(GROWN), params, *INPUTS, mask)
    other = run(Unet(GROWN), params, latents.at[:, 2].add(1.0), *rest, mask)
    assert np.abs(other - whole)[0, 0].max() > 1e-3 and (other[1, :2] == whole[1, :2]).all()


def test_images_skip_them(params):
    latents, *rest = INPUTS
    others = params | jax.tree.map(lambda x: x + 1, {name: params[name] for name in GROWN.temporal_modules})
    image = (latents[:, :1], *rest)
    np.testing.assert_array_equal(run(Unet(GROWN), params, *image), run(Unet(GROWN), others, *image))


def test_attention_along_time_is_as_many_ops_on_the_phone_at_any_size():
    counts = [len(ops_of_network(TemporalLayers("attention1d", 1, SMALL), x)) for x in _maps(2, 4)]
    assert counts[0] == counts[1]


def _maps(*sizes: int) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct((1, 3, size, size, 16), jnp.float32) for size in sizes]


def test_a_genome_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="model.temporal has 1 entries, the network 7 places: list a kind .*down_0_0"):
        dataclasses.replace(SMALL, temporal=("conv1d",))
    with pytest.raises(UserError, match="attention1d at down_0_0, whose width is no multiple of model.head_dim"):
        dataclasses.replace(SMALL, widths=(12, 32), temporal=("attention1d", *KINDS[1:]))
    with pytest.raises(UserError, match=r"UnetConfig.temporal\[0\]=conv2d: use none or conv1d"):
        dataclasses.replace(SMALL, temporal=("conv2d", *KINDS[1:]))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("data") / "latents")


@pytest.fixture(scope="module")
def image_run(data, tmp_path_factory) -> Path:
    return tiny.dit_run(tmp_path_factory.mktemp("runs") / "image", tiny.dit_config(data, model=SMALL, text_tokens=12))


def test_what_cannot_be_trained_over_time_alone_is_refused(data, image_run):
    config = tiny.dit_config(data, model=GROWN, temporal_only=True)
    with pytest.raises(UserError, match="which this network has none of: set model.temporal"):
        DitStage(dataclasses.replace(config, model=SMALL))
    with pytest.raises(UserError, match="is an image, which skips layers over time: use longer clips"):
        DitStage(dataclasses.replace(config, clip="1x32x32"))
    with pytest.raises(UserError, match="name a run of the image network there"):
        DitStage(config).train_batches(None)
    grown = tiny.dit_run(image_run.parent / "grown", tiny.dit_config(data, model=GROWN))
    with pytest.raises(UserError, match="has temporal_down_0_0, this network not: set model.temporal"):
        DitStage(tiny.dit_config(data, model=SMALL, init_from=str(grown))).pretrained({})


@pytest.mark.slow
def test_training_over_time_keeps_the_image_network_and_lowers_the_loss(data, image_run, tmp_path):
    config = tiny.dit_config(data, model=GROWN, temporal_only=True, init_from=str(image_run), steps=4, eval_every=4)
    train(DitStage(config), tmp_path / "run")
    images, clips = Run.open(image_run), Run.open(tmp_path / "run")
    before, after = images.params(images.denoiser.parameter_shapes), clips.params(clips.denoiser.parameter_shapes)
    assert all(
        (np.asarray(x) == y).all()
        for x, y in zip(*map(jax.tree.leaves, (before, {k: after[k] for k in before})), strict=True)
    )
    assert set(after) - set(before) == GROWN.temporal_modules
    assert any(
        np.abs(np.asarray(x)).max() > 0 for x in jax.tree.leaves(after["temporal_middle"]["layer_0"]["ffn"]["out"])
    )
