"""Batches of the VAE from two data sets."""

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.stages.vae_batches import train_batches


@pytest.mark.parametrize(("share", "count"), [(0.125, 0), (0.9, 4)])
def test_a_share_that_is_no_clip_or_every_one_is_refused(share, count):
    config = VaeTraining(data="one", mix_data="another", mix_share=share, batch_size=4)
    with pytest.raises(UserError, match=f"of a batch of 4 clips is {count} of them"):
        train_batches(config, make_mesh(MeshConfig()))
