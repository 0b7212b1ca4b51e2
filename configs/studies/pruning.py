"""Studies of pruning."""

import dataclasses
from collections.abc import Callable
from typing import Any

from configs import demo
from configs.studies.trainings import dit_training, recover_training, vae_training
from mobile_video_jax.core.config import Config
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.studies.shrinking_config import PruningStudy

# Of a recovery in a study: constant, so that every point of a curve is a result, and half of the teacher's peak.
RECOVERY: dict[str, Any] = {
    "schedule": "constant",
    "ema_decay": 0.9,
    "learning_rate": 7.5e-3,
    "adam_learning_rate": 1e-3,
}


def pruning_study() -> PruningStudy:
    """A transformer of twice the demo's depth, in its world, where it is soon right: the loss is what is compared."""
    model = DitConfig(width=128, depth=12, heads=8, head_dim=16, ffn=512, scan=True)
    recover = recover_training("tiny", eval_batches=8)
    return PruningStudy(
        vae=vae_training("tiny_t4_s8_c16"),
        dit=dit_training("tiny", model=model, steps=2000, eval_every=250, eval_batches=8, checkpoint_every=250),
        teacher_right=0.9,
        samples=240,
        prune=PruneConfig(
            clips=32, times=4, batch_clips=32, group=32, ffn_multiple=32, heads="exact", channels="taylor"
        ),
        recover=dataclasses.replace(recover, optimizer=dataclasses.replace(recover.optimizer, **RECOVERY)),
        world=demo.WORLD,
        validation_clips=256,
        sampling=SampleConfig(steps=20, guidance=4.0),
    )


def pruning_study_gpu() -> PruningStudy:
    """The small transformer on rendered clips of 17x128x128, two teachers."""
    clip, compression = "17x128x128", "t4_s16_c64"
    shared: dict[str, Any] = {"clip": clip, "compression": compression, "batch_size": 64, "text_tokens": 24}
    optimizer = dataclasses.replace(recover_training("mobile").optimizer, schedule="constant", ema_decay=0.99)
    return PruningStudy(
        vae=vae_training(f"mobile_{compression}", clip=clip, steps=20_000, batch_size=32),
        dit=dit_training("small", **shared, steps=50_000, checkpoint_every=5_000),
        teacher_right=0.9,
        prune=PruneConfig(clips=64, times=4, batch_clips=16, channels="taylor"),
        recover=recover_training("mobile", **shared, optimizer=optimizer),
        world=World(),
        seeds=(0, 1),
        train_clips=20_000,
        samples=1_000,
        recovered_samples=1_000,
        sampling=SampleConfig(steps=40, guidance=5.0),
    )


STUDIES: dict[str, Callable[[], Config]] = {
    "pruning": pruning_study,
    "pruning_quick": lambda: dataclasses.replace(
        pruning_study(), arms=("tri-level", "block", "cross-level", "random"), blocks_kept=(1 / 3,), repeats=3
    ),
    "pruning_gpu": pruning_study_gpu,
}
