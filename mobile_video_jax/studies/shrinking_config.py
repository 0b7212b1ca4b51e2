"""Settings of the studies of smaller networks and fewer steps."""

import dataclasses
from typing import Annotated, Literal, get_args

from mobile_video_jax.core.ranges import Count, CountOrZero, PositiveShare, Range, SolverSteps
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.stages.config import DistillTraining, LazyTraining, RecoverTraining
from mobile_video_jax.studies.config import ChainStudy

PruningArm = Literal[
    "tri-level",
    "block",
    "cross-level",
    "random",
    "taylor",
    "magnitude",
    "pairs",
    "distil-only",
    "repair-first",
    "data-only",
    "iterative",
    "half-rate",
    "double-rate",
]
DistillationArm = Literal[
    "kd", "conv", "dit", "mismatched", "taps", "renoise", "renoise-dit", "dmd", "dmd2", "scm", "kdmd"
]
ArchitectureArm = Literal["task", "longer", "output", "constant", "scaling", "features"]
LazyArm = Literal["fewer", "reuse", "lazy", "chance", "none", "sensitivity", "random", "smaller"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningStudy(ChainStudy):
    """Ways of pruning, and orders of recovering.

    A cell prunes a teacher by one of ARMS to a budget and recovers it for a share of the teacher's steps; the held-out
    loss is measured on the way. Cells of one repeat have the same calibration, batches and noise: they are compared in
    pairs. An arm has `repeats` cells a budget if it is `repeated`, `draws` if it is random, else one.
    """

    prune: PruneConfig  # pruning, which an arm changes
    recover: RecoverTraining  # training of a pruned model, for a share of the teacher's steps
    kind: Literal["pruning"] = "pruning"  # tells this study from the others
    arms: tuple[PruningArm, ...] = get_args(PruningArm)  # ways of pruning and orders of recovering
    repeated: tuple[PruningArm, ...] = ("tri-level", "block", "cross-level")  # arms that have intervals
    blocks_kept: Annotated[tuple[PositiveShare, ...], Range(1, 10)] = (1 / 3, 1 / 2)  # budgets: as many whole blocks
    repeats: Count = 4  # cells of a repeated arm
    draws: Count = 10  # cells of the random arm
    recovery: PositiveShare = 0.12  # share of the teacher's steps that recovery takes
    points: Count = 8  # measurements of a recovery, at equal distances
    recovered_samples: CountOrZero = 0  # clips that a recovered model is evaluated by; 0: by its loss alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationStudy(ChainStudy):
    """Ways of step distillation, of a student that is pruned from its seed's teacher and recovered.

    A cell of ARMS distils the student and evaluates it at several numbers of unguided steps. Arms take as many steps as
    cost what the `dit` arm's do; so has the few-step teacher of the `kdmd` arm, one a seed, beside it. Cells of one
    seed and repeat have the same batches and noise: they are compared in pairs.
    """

    prune: PruneConfig  # pruning of the student
    recover: RecoverTraining  # training of the pruned student
    distill: DistillTraining  # step distillation, which an arm changes; its steps are those of the dit arm
    repeats: Count = 1  # cells of an arm for each seed
    warm_steps: CountOrZero = 0  # first steps, of distillation alone, that all arms of a seed share
    points: Count = 1  # evaluations of a distillation on its way, at equal distances, the last at its end
    evaluated_steps: Annotated[tuple[SolverSteps, ...], Range(1, 10)] = (
        1,
        2,
        4,
        8,
    )  # sampling steps of distilled models
    head_steps: CountOrZero = 0  # steps of an arm's discriminator against the frozen student, to measure it; 0: none
    kind: Literal["distillation"] = "distillation"  # tells this study from the others
    arms: tuple[DistillationArm, ...] = ("kd", "conv", "dit", "dmd")  # ways of step distillation


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchitectureStudy(ChainStudy):
    """A fresh student of another architecture than its seed's teacher, the transformer `dit`, on latents of images.

    A cell of ARMS trains it with some of the terms of its loss. Cells of one seed are compared in pairs.
    """

    student: RecoverTraining  # training of the student, which an arm changes
    kind: Literal["architectures"] = "architectures"  # tells this study from the others
    arms: tuple[ArchitectureArm, ...] = get_args(ArchitectureArm)  # the terms of the student's loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class LazyStudy(ChainStudy):
    """Sampling steps that do without modules: of the guided teacher, and of its few-step student.

    The teacher in each of `steps` saves each of `targets` by sensitivity, and of `control_targets` by gates and by
    chance; it is compared with fewer steps at equal counted FLOPs. The students save `student_target` of the phone's
    time and are trained for one more phase.
    """

    lazy: LazyTraining  # training of gates, and scoring
    distill: DistillTraining  # step distillation of the student from its seed's teacher
    prune: PruneConfig  # pruning of the student, to the phone time of one without modules
    steps: Annotated[tuple[SolverSteps, ...], Range(1, 10)] = (50, 40, 20, 10)  # of the teacher's sampler
    targets: Annotated[tuple[PositiveShare, ...], Range(1, 10)] = (0.2, 0.3, 0.5)  # shares of FLOPs that are saved
    control_targets: Annotated[tuple[PositiveShare, ...], Range(1, 10)] = (0.2, 0.3, 0.5)  # of gates and chance
    student_target: PositiveShare = 0.2  # share of the phone's time that a student saves
    phase_steps: Count = 100  # steps of training with the modules left out
    kind: Literal["lazy"] = "lazy"  # tells this study from the others
    arms: tuple[LazyArm, ...] = get_args(LazyArm)  # samplers of the teacher, and students
