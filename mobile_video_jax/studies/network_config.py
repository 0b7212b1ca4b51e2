"""Settings of the studies of other networks, and of ways to train them."""

import dataclasses
from typing import Annotated, Literal, get_args

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, Decay, PositiveShare, Range
from mobile_video_jax.dit.ladder import rung
from mobile_video_jax.dit.middle import check_drop
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.stages.config import ConvertTraining, DistillTraining, DitTraining, ElasticTraining
from mobile_video_jax.studies.config import ChainStudy

LadderArm = Literal["stages", "assa", "enhanced", "shallow"]
TokenDropArm = Literal["plain-half", "bypass", "fusion", "bypass-half", "fusion-half"]
ElasticArm = Literal["alone", "none", "global", "tensor"]
VideoStepsArm = Literal["flow", "longer", "clips", "mixed"]
TemporalArm = Literal["none", "conv1d", "conv3d", "attention1d", "attention3d", "random", "search"]
AttentionArm = Literal["full", "linear", "lcha", "lcha-softmax", "chunked", "sandwich", "random"]
SeveralClips = Annotated[int, Range(4, 1 << 20)]
Windows = Annotated[tuple[Count, ...], Range(1, 10)]


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
    path_drop: Decay = 0.1  # share of clips whose tokens all do, in both phases
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
