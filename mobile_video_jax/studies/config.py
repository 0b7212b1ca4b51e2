"""Settings of the studies."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, CountOrZero, PositiveShare, Range, Seed, Share, SolverSteps, Weight
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.dit.ladder import rung
from mobile_video_jax.dit.token_drop import check_drop
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.stages.config import (
    ConvertTraining,
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
from mobile_video_jax.vae.family import SizeName

Protocol = Literal["flops", "steps", "decoder"]
Objective = Literal["plain", "consistency", "consistency_mse", "equivariance", "eq", "adversarial", "both"]
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
RewardArm = Literal[
    "latent",
    "latent-early",
    "latent-middle",
    "latent-late",
    "latent-alone",
    "latent-hinge",
    "critic-1",
    "critic-2",
    "critic-4",
    "critic-alone",
]
CountingArm = Literal["count", "count_attention", "count_best"]
LadderArm = Literal["stages", "assa", "enhanced", "shallow"]
TokenDropArm = Literal["plain-half", "bypass", "fusion", "bypass-half", "fusion-half"]
ElasticArm = Literal["alone", "none", "global", "tensor"]
VideoStepsArm = Literal["flow", "longer", "clips", "mixed"]
TemporalArm = Literal["none", "conv1d", "conv3d", "attention1d", "attention3d", "random", "search"]
AttentionArm = Literal["full", "linear", "lcha", "lcha-softmax", "chunked", "sandwich", "random"]
LazyArm = Literal["fewer", "reuse", "lazy", "chance", "none", "sensitivity", "random", "smaller"]
SeveralClips = Annotated[int, Range(4, 1 << 20)]
Windows = Annotated[tuple[Count, ...], Range(1, 10)]
Seeds = Annotated[tuple[Seed, ...], Range(1, 1000)]


GUIDED = SampleConfig(steps=40, guidance=5.0)


@dataclasses.dataclass(frozen=True)
class StudyConfig(Config):
    """The grid of VAEs, and what every cell shares.

    A cell trains a VAE, then the transformer `dit` on its latents.
    """

    compressions: Annotated[tuple[str, ...], Range(1, 1000)]  # the VAEs' strides and latent channels, as t4_s8_c16
    vae: VaeTraining  # training of a cell's VAE, its steps those of the first compression
    dit: DitTraining  # training of a cell's transformer, its steps those of the first compression
    server: DitTraining  # large transformer whose cost at a compression is quoted
    mobile: DitTraining  # phone's transformer whose cost at a compression is quoted
    world: World  # synthetic clips, without `data`
    kind: Literal["vae"] = "vae"  # tells this study from the others
    objectives: Annotated[tuple[Objective, ...], Range(1, 7)] = ("plain",)  # changes of the VAE's loss
    seeds: Seeds = (0,)  # seeds of the cells
    size: SizeName = "tiny"  # size of the VAEs
    protocol: Protocol = "flops"  # equal in all cells: FLOPs of training, steps, or steps and the decoder's FLOPs
    data: str = ""  # prepared data set or folder of videos in place of synthetic clips; no samples are read back then
    judged_clip: str = ""  # frames x height x width of clips that reconstructions are evaluated on; `vae.clip` if empty
    lpips: str = ""  # vgg:FILE or alex:FILE: LPIPS of reconstructions with the classifier in the file; none if empty
    train_clips: Count = 2000  # synthetic clips to train on
    validation_clips: Count = 64  # synthetic clips held out for training's own evaluations
    test_clips: Count = 120  # clips that reconstructions are evaluated on at most
    finetune_steps: CountOrZero = 0  # last steps of a VAE, a phase with changes of the loss of its own
    sampling: SampleConfig = GUIDED  # sampler of a cell's clips
    samples: Count = 120  # clips that a cell's transformer is evaluated by at most, for captions of test clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainStudy(Config):
    """Common part of studies of the transformer: the VAE is trained once, the transformer `dit` once a seed."""

    vae: VaeTraining  # training of the one VAE
    dit: DitTraining  # training of each seed's transformer, the teacher
    world: World  # synthetic clips
    seeds: Seeds = (0,)  # seeds of the cells
    train_clips: Count = 3000  # synthetic clips to train on
    validation_clips: Count = 128  # synthetic clips held out for training's own evaluations
    test_clips: Count = 120  # synthetic clips with held-out compositions
    sampling: SampleConfig = GUIDED  # sampler of models that are not distilled
    samples: Count = 120  # clips that each model of a cell is evaluated by
    teacher_right: Share = 0.0  # share of samples right that ends a teacher's training; 0: it takes all its steps


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
class RewardStudy(ChainStudy):
    """Ways of fine-tuning a seed's transformer by a reward, beside the base and plain training for as many steps.

    The latent reward of a seed learns from its transformer's own clips, which the detector labels.
    """

    reward: RewardTraining  # training of the latent reward
    critic: CriticTraining  # training of the critic of decoded frames, one for all seeds
    tuning: RewardTuning  # fine-tuning, which an arm changes
    rollout: SampleConfig  # sampler of the clips that are labelled
    labelled: Count = 1500  # clips that the latent reward is trained on
    points: Count = 4  # measurements of a tuning, at equal distances
    curve_samples: CountOrZero = 120  # clips of each of them; 0: none is measured
    kind: Literal["reward"] = "reward"  # tells this study from the others
    arms: tuple[RewardArm, ...] = get_args(RewardArm)  # ways of fine-tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountingStudy(ChainStudy):
    """Guides to the right number of objects, beside plain sampling from the same noise."""

    critic: CriticTraining  # training of the critic that counts
    count_strength: Weight = 0.3  # strength of the critic's gradient
    attention_strength: Weight = 1.0  # strength of CountDiffusion's
    kind: Literal["counting"] = "counting"  # tells this study from the others
    arms: tuple[CountingArm, ...] = get_args(CountingArm)  # guides

    @property
    def strengths(self) -> dict[str, float]:
        """The guides' strengths by their names."""
        return {"count": self.count_strength, "count_attention": self.attention_strength}


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemporalStudy(ChainStudy):
    """Layers over time behind a frozen image network, the U-Net `dit`: searched, by chance, and of one kind.

    All arms of one seed have the same image network, batches and noise.
    """

    video: DitTraining  # training of an arm's layers, whose network is the image network's
    search: SearchConfig  # the search, once for each seed
    budget: PositiveShare = 0.5  # share of the milliseconds that 3-D attention at all places would add to a call
    kind: Literal["temporal"] = "temporal"  # tells this study from the others
    arms: tuple[TemporalArm, ...] = get_args(TemporalArm)  # the layers over time

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = {"attention3d", *self.arms} - {"none", "random", "search"}
        if missing := sorted(needed - set(self.search.temporal)):
            raise UserError(
                f"the budget is a share of attention3d's, and arms have a kind each: {', '.join(missing)} must be in "
                "search.temporal too"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoStepsStudy(ChainStudy):
    """Fine-tuning of a video U-Net to a few unguided steps, without a teacher, beside the network before it.

    All arms of one seed start from the same video network, which has grown from its image network `dit`.
    """

    video: DitTraining  # training of the video network on clips and images, all of it
    tune: DistillTraining  # fine-tuning, which an arm changes
    kind: Literal["video_steps"] = "video_steps"  # tells this study from the others
    arms: tuple[VideoStepsArm, ...] = get_args(VideoStepsArm)  # ways of fine-tuning

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.video.image_share, self.tune.image_share) < 0:
            raise UserError("batches of images are counted: set video.image_share and tune.image_share from 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElasticStudy(ChainStudy):
    """Widths of one elastic network beside each width alone, for as many steps.

    The whole width alone is its seed's transformer `dit`. All of one seed have the same batches and noise.
    """

    elastic: ElasticTraining  # training of the elastic network, whose balance an arm names
    kind: Literal["elastic"] = "elastic"  # tells this study from the others
    arms: tuple[ElasticArm, ...] = get_args(ElasticArm)  # each width alone, and ways of adding gradients


@dataclasses.dataclass(frozen=True, kw_only=True)
class LadderStudy(ChainStudy):
    """SnapGen++'s steps from a seed's plain transformer `dit` to three stages, and a plain one of the last's cost.

    All of one seed have the same steps, batches and noise.
    """

    phone: DitTraining  # transformer at whose size parameters and time on a phone are counted
    kind: Literal["ladder"] = "ladder"  # tells this study from the others
    arms: tuple[LadderArm, ...] = get_args(LadderArm)  # the steps, each with those before, and the plain one

    def __post_init__(self) -> None:
        super().__post_init__()
        for training in (self.dit, self.phone):
            rung(training.transformer, "enhanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenDropStudy(ChainStudy):
    """Training on some of the tokens, then on all, beside a seed's transformer `dit`, which sees all throughout.

    Arms have its FLOPs or half of them, and the middle blocks with SPRINT's fusion or without.
    """

    token_drop: PositiveShare = 0.75  # share of tokens that pass by the middle blocks in the first phase
    path_drop: Share = 0.1  # share of clips whose tokens all do, in both phases
    whole: PositiveShare = 0.25  # share of an arm's FLOPs that its second phase takes
    kind: Literal["token_drop"] = "token_drop"  # tells this study from the others
    arms: tuple[TokenDropArm, ...] = get_args(TokenDropArm)  # trainings beside the plain one

    def __post_init__(self) -> None:
        super().__post_init__()
        check_drop(self.dit.transformer)
        if self.whole == 1 or self.token_drop == 1:
            raise UserError("token_drop and whole are shares below 1: both phases have tokens and steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionStudy(ChainStudy):
    """Kinds of attention and layouts in place of a seed's transformer `dit`, causal and of full attention.

    Each is converted from it block by block and trained on; both together take the FLOPs of the full one's `tune`. The
    sandwich is searched for a share of full attention's time on the phone, random layouts have its time. All stream.
    """

    convert: ConvertTraining  # conversion, whose layout an arm names
    tune: DitTraining  # training after it; its steps are those of full attention
    search: SearchConfig  # search of the sandwich; its `floor` is the number of random layouts
    phone: DitTraining  # transformer whose time on a phone is estimated: layouts are stretched to its depth
    budget: PositiveShare = 0.5  # of full attention's estimated time, what searched layouts may take
    windows: Windows = (1, 2, 4, 8)  # lengths of a training clip after which streams are measured
    streamed: SeveralClips = 24  # clips that are streamed to the last window; the others end with the first
    kind: Literal["attention"] = "attention"  # tells this study from the others
    arms: tuple[AttentionArm, ...] = get_args(AttentionArm)  # kinds and layouts

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dit.transformer.causal or self.dit.transformer.layout:
            raise UserError("all models of this study stream, from one of full attention: set dit.model.causal=True")
        if self.windows[0] != 1 or self.samples % self.streamed:
            raise UserError("windows begin with 1, and samples are whole batches of the clips that are streamed on")


STUDIES: dict[str, type[Config]] = {
    "vae": StudyConfig,
    "pruning": PruningStudy,
    "distillation": DistillationStudy,
    "architectures": ArchitectureStudy,
    "reward": RewardStudy,
    "counting": CountingStudy,
    "lazy": LazyStudy,
    "elastic": ElasticStudy,
    "temporal": TemporalStudy,
    "video_steps": VideoStepsStudy,
    "attention": AttentionStudy,
    "ladder": LadderStudy,
    "token_drop": TokenDropStudy,
}


def study_class(values: Mapping[str, Any]) -> type[Config]:
    """The config class that the key `kind` names. Raises UserError for an unknown kind."""
    kind = values.get("kind")
    if kind not in STUDIES:
        raise UserError(f"kind '{kind}' is no study; choose one of {', '.join(STUDIES)}")
    return STUDIES[kind]
