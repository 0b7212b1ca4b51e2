"""Batches of the VAE from two data sets, and of clips of two shapes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.stages.vae_batches import train_batches
from mobile_video_jax.vae.config import VaeLossConfig
from tests import tiny


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "shapes"
    prepare("moving_shapes", out, clip=ClipShape(9, 32, 32), sizes={"train": 6, "validation": 0, "test": 0})
    return out


@pytest.mark.parametrize(("share", "count"), [(0.125, 0), (0.9, 4)])
def test_a_share_that_is_no_clip_or_every_one_is_refused(share, count):
    config = VaeTraining(data="one", mix_data="another", mix_share=share, batch_size=4)
    with pytest.raises(UserError, match=f"of a batch of 4 clips is {count} of them"):
        train_batches(config, make_mesh(MeshConfig()))


def test_images_have_batches_of_their_own_that_resume_exactly(shapes):
    config = VaeTraining(
        data=str(shapes), clip="9x32x32", mix_data=str(shapes), mix_clip="1x32x32", mix_share=0.25, batch_size=4
    )
    batches = train_batches(config, make_mesh(MeshConfig()))
    whole = list(itertools.islice(batches, 12))
    images = [batch for batch in whole if batch["video"].shape == (4, 1, 32, 32, 3)]
    videos = [batch for batch in whole if batch["video"].shape == (4, 9, 32, 32, 3)]
    assert len(images) == 3 and len(videos) == 9
    assert all((batch["record"] < 0).all() for batch in images) and all((b["record"] >= 0).all() for b in videos)
    iterator = iter(batches)
    for _ in range(5):
        next(iterator)
    resumed = iter(batches)
    resumed.set_state(json.loads(json.dumps(iterator.get_state())))
    for batch, expected in zip(resumed, whole[5:], strict=False):
        np.testing.assert_array_equal(batch["video"], expected["video"])


def test_clips_of_another_shape_that_do_not_fit_are_refused_before_the_first_step(shapes):
    with pytest.raises(UserError, match="mix_clip asks for batches of mix_data: name it"):
        VaeTraining(mix_clip="1x32x32")
    mixed = {"mix_data": str(shapes), "mix_share": 0.5, "discriminator_widths": (4, 8, 8, 8)}
    refused = {"1x36x32": "does not divide by the spatial stride", "1x40x32": "frames of 40x32 do not divide by 16"}
    for clip, message in refused.items():
        config = tiny.vae_config(shapes, mix_clip=clip, loss=VaeLossConfig(adversarial=0.1), **mixed)
        with pytest.raises(UserError, match=message):
            VaeStage(config).train_batches(make_mesh(MeshConfig()))
