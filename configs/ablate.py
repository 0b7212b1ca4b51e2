"""Studies: of the VAE, which compression and which loss; of the transformer, which way of pruning and of
step distillation.

python -m launch.ablate --study=compression --out=studies/compression

Two cores: `compression` is 6 cells x 1 seed: four token counts at 96:1, and the ratios around it, about 90 minutes by
its FLOPs; `compression_quick`, 4 of them at a third of the budget, about 20. Cells have equal training FLOPs, so that
those of few tokens take more steps; --config.protocol=steps or decoder makes other things equal. `objectives` is latent
consistency and scale equivariance on and off, three seeds, about 35 minutes. One accelerator: `compression_gpu`, 8
cells of mobile VAEs with a fine-tuning phase. A pod: `compression_pod`, 96 cells in four objectives and three seeds,
shared by --workers. --plan prints the hours of each, from counted FLOPs. `patch` is three ways to one number of tokens
and values: stride 16, stride 8 with patches of 2x2 and stride 4 with 4x4 in the transformer; three seeds.

`pruning` prunes one strong transformer of 12 blocks (trained until 90 % of its samples are right) to a third and half
of its blocks' parameters by KD sensitivity, over all levels or blocks alone, by chance ten times and in other ways, and
measures the held-out loss at eight points of a recovery of 12 % of the teacher's steps; orders of recovering, pruning
in two rounds and other rates are arms as well. `pruning_quick` is one budget with what decides, 20 cells, which the
full study takes over in the same folder. `pruning_gpu`: the small transformer, samples read back, on an accelerator.

`distillation` teaches the pruned and recovered transformer to draw in four unguided steps: by distillation alone,
against a discriminator with a convolutional head or one of transformer blocks, and by distribution matching. 24 cells,
three seeds: 43 minutes on two cores with --workers=2 once teachers and students are there, about an hour and a half
with them (the sum of its parts). `distillation_quick`, one seed without distribution matching, has not been timed:
about 25 minutes by its parts. `distillation_gpu` on an accelerator.

`snapgen` teaches a fresh tiny U-Net by a transformer on the same latents of still images: by data alone (also for as
many FLOPs as a teacher's help costs), + the teacher's velocity, + SnapGen's balance by time (and a constant one), +
features; 21 cells, three seeds. `snapgen_quick` has half of the steps. Neither has been timed.

`lazy` samples one transformer in fewer steps, or with outputs reused from the step before by trained gates, at equal
FLOPs, and its 4-step student with modules left out, by sensitivity or chance, or pruned to the same phone time.
`lazy_quick` is one seed, two numbers of steps and one target, 31 minutes on one core; `lazy_gpu`, the small
transformer. The others have not been timed.

`elastic` trains one transformer whose half width is a network of its own, adding both gradients as they are, or of one
size as a whole or by tensor, beside both widths trained alone for as many steps; 15 cells, three seeds. `elastic_quick`
is one seed, one of the ways and a fifth of the steps; `elastic_gpu`, widths of the small transformer. None has
been timed.

Two studies of one strong teacher, in pairs of one seed, at equal counted FLOPs: `distillation_heads` compares
discriminators, by their held-out AUC against the frozen student and by the students that they teach;
`distillation_steps` compares Euler steps and x0 noised afresh, with and without a discriminator, DMD2 and sCM, at four
points of their steps. Each has a _quick form, in the demo's world, whose teacher needs a few hundred steps, and a _gpu
one for an accelerator. None has been timed.

`reward` fine-tunes a transformer by a latent reward at all, early, middle and late times, with a hinge and without
flow matching, and by a critic of decoded frames through the last 1, 2 and 4 steps; `counting` guides its samples to the
number of objects by the critic, by cross-attention (CountDiffusion), and by the best of two. Both are read back by the
detector, which nothing is optimised for. Each has a _quick form of one seed, and a _gpu one. On one core `reward_quick`
takes about 45 minutes and `counting_quick` about 30; the others have not been timed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections

from configs import critic, demo, distill, dit, elastic, lazy, prune, recover, reward, reward_tuning, vae
from mobile_video_jax.core.config import Config, from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.world import KNOWN, World
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.stages.config import (
    CriticTraining,
    DistillTraining,
    DitTraining,
    ElasticTraining,
    LazyTraining,
    RecoverTraining,
    RewardTraining,
    RewardTuning,
    VaeTraining,
)
from mobile_video_jax.studies.config import (
    ArchitectureStudy,
    ChainStudy,
    CountingStudy,
    DistillationStudy,
    ElasticStudy,
    LazyStudy,
    PruningStudy,
    RewardStudy,
    StudyConfig,
)


def _vae(variant: str, **changes: Any) -> VaeTraining:
    return dataclasses.replace(from_mapping(VaeTraining, vae.get_config(variant).to_dict()), **changes)


def _dit(variant: str, **changes: Any) -> DitTraining:
    return dataclasses.replace(from_mapping(DitTraining, dit.get_config(variant).to_dict()), **changes)


def _tiny() -> StudyConfig:
    return StudyConfig(
        compressions=("t4_s8_c16", "t4_s8_c8", "t4_s16_c32", "t8_s16_c64", "t8_s32_c256", "t8_s32_c128"),
        vae=_vae("tiny_t4_s8_c16", steps=800, checkpoint_every=400),
        dit=_dit("tiny", steps=600, eval_every=600, checkpoint_every=600),
        server=_dit("server"),
        mobile=_dit("mobile"),
        world=demo.WORLD,
        sampling=SampleConfig(steps=20, guidance=8.0),
    )


def _quick(**changes: Any) -> StudyConfig:
    study = _tiny()
    vae = dataclasses.replace(study.vae, steps=250, checkpoint_every=250)
    dit = dataclasses.replace(study.dit, steps=300, eval_every=300, checkpoint_every=300)
    return dataclasses.replace(study, vae=vae, dit=dit, **changes)


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


# Of a recovery in a study: constant, so that every point of a curve is a result, and half of the teacher's peak.
RECOVERY: dict[str, Any] = {
    "schedule": "constant",
    "ema_decay": 0.9,
    "learning_rate": 7.5e-3,
    "adam_learning_rate": 1e-3,
}


def _pruning() -> PruningStudy:
    """A transformer of twice the demo's depth, in its world, where it is soon right: the loss is what is compared."""
    model = DitConfig(width=128, depth=12, heads=8, head_dim=16, ffn=512, scan=True)
    recover = _recover("tiny", eval_batches=8)
    return PruningStudy(
        vae=_vae("tiny_t4_s8_c16"),
        dit=_dit("tiny", model=model, steps=2000, eval_every=250, eval_batches=8, checkpoint_every=250),
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


def _pruning_gpu() -> PruningStudy:
    """The small transformer on rendered clips of 17x128x128, two teachers."""
    clip, compression = "17x128x128", "t4_s16_c64"
    shared: dict[str, Any] = {"clip": clip, "compression": compression, "batch_size": 64, "text_tokens": 24}
    optimizer = dataclasses.replace(_recover("mobile").optimizer, schedule="constant", ema_decay=0.99)
    return PruningStudy(
        vae=_vae(f"mobile_{compression}", clip=clip, steps=20_000, batch_size=32),
        dit=_dit("small", **shared, steps=50_000, checkpoint_every=5_000),
        teacher_right=0.9,
        prune=PruneConfig(clips=64, times=4, batch_clips=16, channels="taylor"),
        recover=_recover("mobile", **shared, optimizer=optimizer),
        world=World(),
        seeds=(0, 1),
        train_clips=20_000,
        samples=1_000,
        recovered_samples=1_000,
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
        "teacher_right": 0.0,
        "seeds": (0, 1, 2),
        "validation_clips": 128,
    }
    pruned = from_mapping(PruneConfig, prune.get_config("tiny").to_dict())
    return DistillationStudy(**shared, prune=pruned, recover=_recover("tiny"), distill=distill)


def _distillation_gpu() -> DistillationStudy:
    pruning = _pruning_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {"teacher_right": 0.0, "seeds": (0, 1, 2)}
    same = {key: getattr(pruning.recover, key) for key in ("clip", "compression", "batch_size", "text_tokens")}
    distill = dataclasses.replace(_distill("mobile"), **same, steps=10_000)
    recover = _recover("mobile", **same, steps=10_000)
    return DistillationStudy(**shared, prune=pruning.prune, recover=recover, distill=distill)


def _lazy() -> LazyStudy:
    """The demo's transformer in the demo's world, and its student of 4 steps by distillation alone."""
    pruning, distill = _pruning(), _distill("tiny")
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {"dit": _dit("tiny", steps=1200, checkpoint_every=200), "seeds": (0, 1, 2), "samples": 120}
    objective = dataclasses.replace(distill.objective, method="kd")
    return LazyStudy(
        **shared,
        student_target=0.1,  # of 48 tokens' time on a phone modules are 17 %
        lazy=from_mapping(LazyTraining, lazy.get_config("tiny").to_dict()),
        distill=dataclasses.replace(distill, objective=objective, steps=200),
        prune=from_mapping(PruneConfig, prune.get_config("tiny").to_dict()),
    )


def _lazy_gpu() -> LazyStudy:
    """The small transformer on rendered clips of 17x128x128, with the published training of gates."""
    pruning, distill = _pruning_gpu(), _distillation_gpu().distill
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    objective = dataclasses.replace(distill.objective, method="kd")
    return LazyStudy(
        **shared | {"seeds": (0, 1, 2)},
        lazy=from_mapping(LazyTraining, lazy.get_config("paper").to_dict()),
        distill=dataclasses.replace(distill, objective=objective),
        prune=pruning.prune,
        phase_steps=1_000,
    )


HEADS: dict[str, Any] = {"arms": ("kd", "conv", "dit", "mismatched", "taps"), "seeds": (0,), "repeats": 8}
FEW: dict[str, Any] = {"arms": ("kd", "dit", "renoise", "renoise-dit", "dmd2", "scm"), "seeds": (0,), "repeats": 4}


def _distillation_of(arms: dict[str, Any], *, steps: int, **changes: Any) -> DistillationStudy:
    """Arms of one strong teacher's student, after as long a recovery as lets it follow."""
    study = _distillation()
    return dataclasses.replace(
        study,
        dit=dataclasses.replace(study.dit, steps=4000, checkpoint_every=500),
        teacher_right=0.9,
        recover=dataclasses.replace(study.recover, steps=1000),
        distill=dataclasses.replace(study.distill, steps=steps, eval_every=steps, checkpoint_every=steps),
        samples=1000,
        test_clips=240,
        **(arms | changes),
    )


def _snapgen(*, teacher_steps: int, steps: int, **changes: Any) -> ArchitectureStudy:
    """A tiny U-Net taught by the tiny transformer, on still images of one object."""
    pruning = _pruning()
    shared: dict[str, Any] = {field.name: getattr(pruning, field.name) for field in dataclasses.fields(ChainStudy)}
    shared |= {
        "world": dataclasses.replace(demo.WORLD, motions=("still",)),
        "dit": _dit("tiny", clip="1x32x32", steps=teacher_steps, eval_every=teacher_steps // 4, eval_batches=8),
        "teacher_right": 0.0,
        "seeds": (0, 1, 2),
    }
    return ArchitectureStudy(**shared | changes, student=_recover("unet", steps=steps, eval_batches=8))


# Several small objects, which the small transformer of so few steps often gets wrong: there is room to improve.
REWARD_WORLD = World(
    counts=(1, 2, 3), shapes=("square", "cross"), motions=("left", "right", "still"), backgrounds=("dark",)
)


def _reward(**changes: Any) -> RewardStudy:
    study = RewardStudy(
        vae=_vae("tiny_t4_s8_c16", steps=800, checkpoint_every=400, eval_every=400),
        dit=_dit("tiny", steps=900, eval_every=300, checkpoint_every=300),
        world=REWARD_WORLD,
        seeds=(0, 1, 2),
        samples=240,
        sampling=SampleConfig(steps=20, guidance=4.0),
        rollout=SampleConfig(steps=10, guidance=3.0),
        reward=from_mapping(RewardTraining, reward.get_config("tiny").to_dict()),
        critic=_critic(),
        tuning=from_mapping(RewardTuning, reward_tuning.get_config("tiny").to_dict()),
    )
    return dataclasses.replace(study, **changes)


def _elastic(*, steps: int, **changes: Any) -> ElasticStudy:
    """The demo's transformer, whole and of half the width, in the world of the study of rewards."""
    chain = _reward()
    shared: dict[str, Any] = {f.name: getattr(chain, f.name) for f in dataclasses.fields(ChainStudy)}
    periods: dict[str, Any] = {"steps": steps, "eval_every": steps, "eval_batches": 4, "checkpoint_every": steps}
    shared |= {"dit": _dit("tiny", **periods), "samples": 120}
    training = from_mapping(ElasticTraining, elastic.get_config("tiny").to_dict())
    return ElasticStudy(**shared | changes, elastic=dataclasses.replace(training, **periods))


def _elastic_gpu() -> ElasticStudy:
    """The small transformer on rendered clips of 17x128x128."""
    pruning = _pruning_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {"teacher_right": 0.0, "seeds": (0, 1, 2)}
    same = {field.name: getattr(pruning.dit, field.name) for field in dataclasses.fields(DitTraining)}
    training = ElasticTraining(**same | {"stage": "elastic"}, widths=elastic.WIDTHS["small"])
    return ElasticStudy(**shared, elastic=training)


def _reward_gpu() -> RewardStudy:
    chain = _distillation_gpu()
    shared: dict[str, Any] = {f.name: getattr(chain, f.name) for f in dataclasses.fields(ChainStudy)}
    tuning = from_mapping(RewardTuning, reward_tuning.get_config("small").to_dict())
    latent = from_mapping(RewardTraining, reward.get_config("small").to_dict())
    critic = dataclasses.replace(_critic(), clip=chain.vae.clip, steps=20_000)
    rollout = SampleConfig(steps=40, guidance=5.0)
    return _reward(**shared, reward=latent, critic=critic, tuning=tuning, rollout=rollout, labelled=20_000)


def _critic(**changes: Any) -> CriticTraining:
    return dataclasses.replace(from_mapping(CriticTraining, critic.get_config().to_dict()), **changes)


def _short_rewards() -> dict[str, Any]:
    """Trainings of the quick studies of rewards."""
    tuning = from_mapping(RewardTuning, reward_tuning.get_config("tiny").to_dict())
    return {"critic": _critic(steps=700), "tuning": dataclasses.replace(tuning, steps=150)}


def _counting(**changes: Any) -> CountingStudy:
    chain = _reward()
    shared: dict[str, Any] = {f.name: getattr(chain, f.name) for f in dataclasses.fields(ChainStudy)}
    return CountingStudy(**shared | {"critic": _critic()} | changes)


def _quickly(arms: dict[str, Any], *, steps: int, **changes: Any) -> DistillationStudy:
    """The same in the demo's world: its teacher is soon right, so that heads tell more there than students do."""
    study = _distillation_of(arms, steps=steps)
    return dataclasses.replace(
        study,
        world=demo.WORLD,
        dit=dataclasses.replace(study.dit, steps=2000, checkpoint_every=250),
        recover=dataclasses.replace(study.recover, steps=300),
        samples=480,
        test_clips=480,
        evaluated_steps=(4,),
        **changes,
    )


STUDIES: dict[str, Callable[[], Config]] = {
    "compression": _tiny,
    "compression_quick": lambda: _quick(
        compressions=("t4_s8_c16", "t4_s16_c32", "t8_s16_c64", "t8_s32_c128"),
    ),
    "patch": lambda: _quick(compressions=("t4_s16_c64", "t4_s8_c16_p2", "t4_s4_c4_p4"), seeds=(0, 1, 2)),
    "patch_gpu": lambda: _accelerator(compressions=("t8_s32_c128", "t8_s16_c32_p2", "t8_s8_c8_p4")),
    "objectives": lambda: _quick(
        compressions=("t4_s8_c16",),
        objectives=("plain", "consistency", "equivariance"),
        seeds=(0, 1, 2),
        finetune_steps=100,
    ),
    "pruning": _pruning,
    "pruning_quick": lambda: dataclasses.replace(
        _pruning(), arms=("tri-level", "block", "cross-level", "random"), blocks_kept=(1 / 3,), repeats=3
    ),
    "pruning_gpu": _pruning_gpu,
    "distillation": _distillation,
    "distillation_quick": lambda: dataclasses.replace(_distillation(), arms=("kd", "conv", "dit"), seeds=(0,)),
    "distillation_gpu": _distillation_gpu,
    "distillation_heads": lambda: _distillation_of(HEADS, steps=300, warm_steps=300, head_steps=200),
    "distillation_heads_quick": lambda: _quickly(HEADS, steps=60, warm_steps=60, head_steps=100, repeats=3),
    "distillation_heads_gpu": lambda: dataclasses.replace(
        _distillation_gpu(), **HEADS | {"repeats": 3}, warm_steps=5_000, head_steps=2_000
    ),
    "distillation_steps": lambda: _distillation_of(FEW, steps=400, points=4),
    "distillation_steps_quick": lambda: _quickly(FEW, steps=120, points=3, repeats=2),
    "distillation_steps_gpu": lambda: dataclasses.replace(_distillation_gpu(), **FEW | {"repeats": 3}),
    "snapgen": lambda: _snapgen(teacher_steps=800, steps=400),
    "snapgen_quick": lambda: _snapgen(teacher_steps=400, steps=200),
    "reward": _reward,
    "reward_quick": lambda: _reward(
        seeds=(0,),
        arms=("latent", "critic-2"),
        samples=120,
        labelled=600,
        curve_samples=60,
        points=2,
        **_short_rewards(),
    ),
    "reward_gpu": _reward_gpu,
    "counting": _counting,
    "counting_quick": lambda: _counting(seeds=(0,), samples=120, critic=_critic(steps=700)),
    "counting_gpu": lambda: dataclasses.replace(
        _counting(**{f.name: getattr(_distillation_gpu(), f.name) for f in dataclasses.fields(ChainStudy)}),
        critic=dataclasses.replace(_critic(), clip="17x128x128", steps=20_000),
    ),
    "elastic": lambda: _elastic(steps=600),
    "elastic_quick": lambda: _elastic(steps=120, seeds=(0,), samples=60, arms=("alone", "global")),
    "elastic_gpu": _elastic_gpu,
    "lazy": _lazy,
    "lazy_quick": lambda: dataclasses.replace(
        _lazy(),
        steps=(20, 10),
        targets=(0.3,),
        seeds=(0,),
        distill=dataclasses.replace(_lazy().distill, steps=120),
        phase_steps=40,
    ),
    "lazy_gpu": _lazy_gpu,
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
