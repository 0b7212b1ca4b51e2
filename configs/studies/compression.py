"""Studies of the VAE: which compression, which loss, and where to compress."""

import dataclasses
from collections.abc import Callable
from typing import Any

from configs import demo
from configs.studies.trainings import dit_training, vae_training
from mobile_video_jax.core.config import Config
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.studies.config import Objective, StudyConfig


def _tiny() -> StudyConfig:
    return StudyConfig(
        compressions=("t4_s8_c16", "t4_s8_c8", "t4_s16_c32", "t8_s16_c64", "t8_s32_c256", "t8_s32_c128"),
        vae=vae_training("tiny_t4_s8_c16", steps=800, checkpoint_every=400),
        dit=dit_training("tiny", steps=600, eval_every=600, checkpoint_every=600),
        server=dit_training("server"),
        mobile=dit_training("mobile"),
        world=demo.WORLD,
        sampling=SampleConfig(steps=20, guidance=8.0),
    )


def _quick(**changes: Any) -> StudyConfig:
    study = _tiny()
    vae = dataclasses.replace(study.vae, steps=250, checkpoint_every=250)
    dit = dataclasses.replace(study.dit, steps=300, eval_every=300, checkpoint_every=300)
    return dataclasses.replace(study, vae=vae, dit=dit, **changes)


# Ways of training one network, of which a study of arms takes each.
ARMS: tuple[Objective, ...] = ("plain", "consistency", "consistency_mse", "equivariance", "eq", "adversarial")


def _arms(**changes: Any) -> StudyConfig:
    """Tiny VAEs with a second phase; the discriminator has the rate of so short a training."""
    study = _tiny()
    opponent = dataclasses.replace(study.vae.optimizer.opponent, learning_rate=1e-3)
    optimizer = dataclasses.replace(study.vae.optimizer, opponent=opponent)
    vae = dataclasses.replace(study.vae, optimizer=optimizer, adaptive_adversarial=True)
    arms = dataclasses.replace(
        study,
        compressions=("t4_s8_c16", "t4_s16_c32", "t8_s16_c32"),
        objectives=ARMS,
        vae=vae,
        finetune_steps=200,
        seeds=(0, 1, 2),
    )
    return dataclasses.replace(arms, **changes)


def _quick_arms() -> StudyConfig:
    """All arms at one ratio, whose cells are cheap, so that they are trained for longer."""
    study = _arms(compressions=("t4_s16_c32",), seeds=(0,))
    vae = dataclasses.replace(study.vae, steps=700, checkpoint_every=350)
    dit = dataclasses.replace(study.dit, steps=300, eval_every=300, checkpoint_every=300)
    return dataclasses.replace(study, vae=vae, dit=dit)


def _patch() -> StudyConfig:
    """One number of tokens and values by three strides; the first is cheap, so that the others have steps enough."""
    study = _tiny()
    return dataclasses.replace(
        study,
        compressions=("t4_s16_c64", "t4_s8_c16_p2", "t4_s4_c4_p4"),
        seeds=(0, 1, 2),
        vae=dataclasses.replace(study.vae, steps=1600, checkpoint_every=400),
        dit=dataclasses.replace(study.dit, steps=900, eval_every=900, checkpoint_every=300),
    )


def _accelerator(**changes: Any) -> StudyConfig:
    """Mobile VAEs on rendered clips of 17x128x128, or on --config.data of your own."""
    study = StudyConfig(
        compressions=(
            *("t4_s8_c16", "t4_s16_c64", "t4_s16_c32", "t8_s16_c128"),
            *("t4_s32_c128", "t8_s32_c256", "t8_s32_c128", "t8_s32_c64"),
        ),
        size="mobile",
        vae=vae_training("mobile_t8_s32_c128", clip="17x128x128", steps=20_000, batch_size=32),
        finetune_steps=2_000,
        dit=dit_training("small", clip="17x128x128", steps=20_000, batch_size=64, text_tokens=24),
        server=dit_training("server"),
        mobile=dit_training("mobile"),
        world=World(),
        train_clips=20_000,
        validation_clips=256,
        test_clips=256,
        samples=1_000,
        sampling=SampleConfig(steps=40, guidance=5.0),
    )
    return dataclasses.replace(study, **changes)


STUDIES: dict[str, Callable[[], Config]] = {
    "compression": _tiny,
    "compression_quick": lambda: _quick(
        compressions=("t4_s8_c16", "t4_s16_c32", "t8_s16_c64", "t8_s32_c128"),
    ),
    "patch": _patch,
    "patch_gpu": lambda: _accelerator(compressions=("t8_s32_c128", "t8_s16_c32_p2", "t8_s8_c8_p4")),
    "objectives": lambda: _quick(
        compressions=("t4_s8_c16",),
        objectives=("plain", "consistency", "equivariance"),
        seeds=(0, 1, 2),
        finetune_steps=100,
    ),
    "arms": _arms,
    "arms_quick": _quick_arms,
    "arms_gpu": lambda: _accelerator(
        compressions=("t4_s8_c16", "t8_s16_c64", "t8_s32_c128"), objectives=ARMS, seeds=(0, 1, 2)
    ),
    "compression_gpu": _accelerator,
    "compression_pod": lambda: _accelerator(
        objectives=("plain", "consistency", "equivariance", "both"), seeds=(0, 1, 2)
    ),
}
