"""Studies: of the VAE, which compression and which loss; of the transformer, which way of pruning and of
step distillation.

python -m launch.ablate --study=compression --out=studies/compression

Two cores: `compression` is 6 cells x 1 seed in at most 20 minutes: four token counts at 96:1, and the ratios around
it. `objectives` is latent consistency and scale equivariance on and off, three seeds, about 35 minutes. One
accelerator: `compression_gpu`, 8 cells of mobile VAEs with a fine-tuning phase, 6 hours at 30 % of an H100's bf16 peak
(an estimate: counted FLOPs over that speed, by --plan). A pod: `compression_pod`, 96 cells in four objectives and three
seeds, 71 such hours, shared by --workers.

`pruning` prunes the demo's transformer to half of its blocks' parameters in six ways, recovers each with KD and
without, and trains one of that size from nothing: 24 cells, three seeds, under two hours on two cores;
`pruning_quick`, one seed of the arms that decide; `pruning_gpu`, the small transformer on an accelerator.

`distillation` teaches the pruned and recovered transformer to draw in four unguided steps: by distillation alone,
against a discriminator with a convolutional head or one of transformer blocks, and by distribution matching. 24 cells,
three seeds: 43 minutes on two cores with --workers=2 once teachers and students are there, about an hour and a half
with them (the sum of its parts). `distillation_quick`, one seed without distribution matching, has not been timed:
about 25 minutes by its parts. `distillation_gpu` on an accelerator.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections

from configs import demo, distill, dit, prune, recover, vae
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.world import KNOWN, World
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.stages.config import DistillTraining, DitTraining, RecoverTraining, VaeTraining
from mobile_video_jax.studies.config import ChainStudy, DistillationStudy, PruningStudy, StudyConfig


def _vae(variant: str, **changes: Any) -> VaeTraining:
    return dataclasses.replace(from_mapping(VaeTraining, vae.get_config(variant).to_dict()), **changes)


def _dit(variant: str, **changes: Any) -> DitTraining:
    return dataclasses.replace(from_mapping(DitTraining, dit.get_config(variant).to_dict()), **changes)


def _tiny() -> StudyConfig:
    return StudyConfig(
        compressions=("t4_s8_c16", "t4_s8_c8", "t4_s16_c32", "t8_s16_c64", "t8_s32_c256", "t8_s32_c128"),
        vae=_vae("tiny_t4_s8_c16", steps=250, eval_every=250, checkpoint_every=250),
        dit=_dit("tiny", steps=300, eval_every=300, checkpoint_every=300),
        server=_dit("server"),
        mobile=_dit("mobile"),
        world=demo.WORLD,
        sampling=SampleConfig(steps=20, guidance=8.0),
    )


def _accelerator(**changes: Any) -> StudyConfig:
    """Mobile VAEs on rendered clips of 17x128x128, or on --config.data of your own."""
    study = StudyConfig(
        compressions=(
            *("t4_s8_c16", "t4_s16_c64", "t4_s16_c32", "t8_s16_c128"),
            *("t4_s32_c128", "t8_s32_c256", "t8_s32_c128", "t8_s32_c64"),
        ),
        size="mobile",
        vae=_vae("mobile_t8_s32_c128", clip="17x128x128", steps=20_000, batch_size=32),
        finetune_steps=2_000,
        dit=_dit("small", clip="17x128x128", steps=20_000, batch_size=64, text_tokens=24),
        server=_dit("server"),
        mobile=_dit("mobile"),
        world=World(),
        train_clips=20_000,
        validation_clips=256,
        test_clips=256,
        samples=1_000,
        sampling=SampleConfig(steps=40, guidance=5.0),
    )
    return dataclasses.replace(study, **changes)


def _recover(variant: str, **changes: Any) -> RecoverTraining:
    return dataclasses.replace(from_mapping(RecoverTraining, recover.get_config(variant).to_dict()), **changes)


def _distill(variant: str) -> DistillTraining:
    return from_mapping(DistillTraining, distill.get_config(variant).to_dict())


def _pruning() -> PruningStudy:
    return PruningStudy(
        vae=_vae("tiny_t4_s8_c16"),
        dit=_dit("tiny"),
        prune=from_mapping(PruneConfig, prune.get_config("tiny").to_dict()),
        recover=_recover("tiny"),
        world=demo.WORLD,
        seeds=(0, 1, 2),
        sampling=SampleConfig(steps=20, guidance=8.0),
    )


def _pruning_gpu() -> PruningStudy:
    """The small transformer on rendered clips of 17x128x128, pruned by the paper's shares."""
    clip, compression = "17x128x128", "t4_s16_c64"
    shared: dict[str, Any] = {"clip": clip, "compression": compression, "batch_size": 64, "text_tokens": 24}
    return PruningStudy(
        vae=_vae(f"mobile_{compression}", clip=clip, steps=20_000, batch_size=32),
        dit=_dit("small", **shared, steps=50_000),
        prune=PruneConfig(clips=64, times=4, batch_clips=16, channels="taylor"),
        recover=_recover("mobile", **shared, steps=10_000),
        world=World(),
        seeds=(0, 1, 2),
        train_clips=20_000,
        samples=1_000,
        sampling=SampleConfig(steps=40, guidance=5.0),
    )


def _distillation() -> DistillationStudy:
    """In the demo's world every way gets 99 % of the samples right: circles and light grounds make it harder.

    Models that are not distilled draw with the guidance that the student learns, in the paper's 40 steps.
    """
    pruning, distill = _pruning(), dataclasses.replace(_distill("tiny"), steps=200)
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {
        "world": dataclasses.replace(demo.WORLD, shapes=KNOWN["shapes"], backgrounds=("dark", "light")),
        "dit": _dit("tiny", steps=1200),
        "sampling": SampleConfig(steps=40, guidance=distill.objective.guidance),
        "samples": 360,
    }
    return DistillationStudy(**shared, prune=pruning.prune, recover=pruning.recover, distill=distill)


def _distillation_gpu() -> DistillationStudy:
    pruning = _pruning_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    same = {key: getattr(pruning.recover, key) for key in ("clip", "compression", "batch_size", "text_tokens")}
    distill = dataclasses.replace(_distill("mobile"), **same, steps=10_000)
    return DistillationStudy(**shared, prune=pruning.prune, recover=pruning.recover, distill=distill)


STUDIES: dict[str, Callable[[], StudyConfig | PruningStudy | DistillationStudy]] = {
    "compression": _tiny,
    "objectives": lambda: dataclasses.replace(
        _tiny(),
        compressions=("t4_s8_c16",),
        objectives=("plain", "consistency", "equivariance"),
        seeds=(0, 1, 2),
        finetune_steps=100,
    ),
    "pruning": _pruning,
    "pruning_quick": lambda: dataclasses.replace(
        _pruning(), arms=("tri-level", "block", "random", "scratch"), seeds=(0,)
    ),
    "pruning_gpu": _pruning_gpu,
    "distillation": _distillation,
    "distillation_quick": lambda: dataclasses.replace(_distillation(), arms=("kd", "conv", "dit"), seeds=(0,)),
    "distillation_gpu": _distillation_gpu,
    "compression_gpu": _accelerator,
    "compression_pod": lambda: _accelerator(
        objectives=("plain", "consistency", "equivariance", "both"), seeds=(0, 1, 2)
    ),
}


def get_config(study: str = "compression") -> ml_collections.ConfigDict:
    """The config of a study. Raises UserError for an unknown one."""
    if study not in STUDIES:
        raise UserError(f"study '{study}' is unknown: choose one of {', '.join(STUDIES)}")
    return to_config_dict(STUDIES[study]())
