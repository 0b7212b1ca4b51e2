"""Settings of the training stages."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import (
    Count,
    CountOrZero,
    Decay,
    PositiveShare,
    Range,
    Share,
    Size,
    SizeOrZero,
    SolverSteps,
    Weight,
)
from mobile_video_jax.distill.config import Balance, CollapseConfig, DiscriminatorConfig, KdWeights, ObjectiveConfig
from mobile_video_jax.dit.config import DitConfig, LoraConfig
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.network_config import NetworkConfig
from mobile_video_jax.rewards.config import CriticConfig, RewardConfig, TuningConfig
from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig, TrainConfig
from mobile_video_jax.vae.config import Sizes, VaeConfig, VaeLossConfig

SolverStepsOrOwn = Annotated[int, Range(0, 1000)]
ShareOrAny = Annotated[float, Range(0, 1, also=-1)]

# Moments and rate of VQGAN's discriminator (arXiv 2012.09841), at a constant rate.
DISCRIMINATOR = OptimizerConfig(schedule="constant", weight_decay=0.0, beta1=0.5, beta2=0.9)


@dataclasses.dataclass(frozen=True)
class VaeTraining(TrainConfig):
    """Config of a VAE run."""

    stage: str = "vae"  # the training stage
    clip: str = "17x64x64"  # frames x height x width of training clips, in pixels
    mix_data: str = ""  # a second data set in every training batch (real beside synthetic video, say)
    mix_share: Share = 0.125  # share of a batch that mix_data fills, or of all batches with mix_clip
    mix_clip: str = ""  # shape of mix_data's clips, in batches of their own (1x256x256: images); `clip` if empty
    native_share: Share = 0.0  # share of clips cut at their video's own resolution (arrays are not); others show most
    stats_batches: Count = 16  # batches of `data` that the latents' mean and deviation are measured on
    freeze_encoder: bool = False  # keep the encoder and latents of init_from, train a new decoder
    image_probability: Share = 0.5  # with model.omni: share of clips whose decoder is given the first frame
    scales: tuple[Size, ...] = (2,)  # factors of latents and frames in loss.scale_equivariance and loss.eq
    vgg_stages: Annotated[int, Range(1, 5)] = 4  # stages of VGG-16 whose features loss.perceptual compares
    sample_every: CountOrZero = 0  # steps between reconstructions of held-out clips for TensorBoard; 0: never
    sample_clips: Count = 4  # clips that are then reconstructed
    discriminator_widths: Sizes = (64, 128, 256)  # channels of the layers behind loss.adversarial
    discriminator_lead: CountOrZero = 0  # steps that it learns before loss.adversarial counts, after generator_alone
    adaptive_adversarial: bool = False  # loss.adversarial is a share of reconstruction's gradient in decoded clips
    optimizer: PlayersOptimizerConfig = dataclasses.field(
        default_factory=lambda: PlayersOptimizerConfig(opponent=DISCRIMINATOR)
    )  # of the VAE and, as its opponent, the discriminator
    model: VaeConfig = dataclasses.field(default_factory=VaeConfig)  # the network's sizes
    loss: VaeLossConfig = dataclasses.field(default_factory=VaeLossConfig)  # weights of the loss's terms

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.loss.l1 or self.loss.l2 or self.loss.perceptual):
            raise UserError("loss.l1, loss.l2 and loss.perceptual are all 0: nothing asks for reconstruction")
        if self.mix_clip and not (self.mix_data and 0 < self.mix_share < 1):
            raise UserError("mix_clip asks for batches of mix_data: name it, and a mix_share between 0 and 1")
        if self.optimizer.generator_every > 1:
            raise UserError("a VAE learns at each step: leave optimizer.generator_every at 1")
        if self.loss.adversarial and self.adversarial_start >= self.steps:
            raise UserError(
                f"loss.adversarial counts from step {self.adversarial_start} of {self.steps}: lower "
                "--config.optimizer.generator_alone or discriminator_lead"
            )

    @property
    def adversarial_start(self) -> int:
        """The step from which loss.adversarial counts."""
        return self.optimizer.generator_alone + self.discriminator_lead


@dataclasses.dataclass(frozen=True)
class LatentTraining(TrainConfig, DenoiserConfig):
    """Config of a run on encoded clips. `data` may be several sets with commas between, of clips of any shapes."""

    token_budget: CountOrZero = 0  # most tokens a batch; 0: batch_size times those of `clip`
    image_share: ShareOrAny = -1.0  # share of batches of one-frame clips; -1: as many as the data hold
    pad_durations: bool = False  # clips of one size share batches, the short ones padded


@dataclasses.dataclass(frozen=True)
class DitTraining(LatentTraining):
    """Config of a transformer run."""

    stage: str = "dit"  # the training stage
    caption_dropout: Share = 0.1  # probability that a training caption is replaced by the empty one
    sample_every: CountOrZero = 0  # steps between clips generated for held-out captions or your prompts; 0: never
    sample_clips: Count = 4  # held-out captions that clips are then generated for
    sample_prompts: str = ""  # .txt or .jsonl file of prompts in place of held-out captions, as launch.sample takes
    sample_text_encoder: str = ""  # where the text encoder lies that reads them, as t5:FOLDER; MiniLM is found
    temporal_only: bool = False  # train the layers over time alone, which images skip; the rest stays as in init_from
    token_drop: Decay = 0.0  # share of tokens that training leaves out of all blocks but the first and last two
    path_drop: Decay = 0.0  # share of clips whose tokens all pass by those blocks, which guidance can then leave out
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)  # with a rank: train an adapter of init_from alone


@dataclasses.dataclass(frozen=True)
class RecoverTraining(DitTraining):
    """Config of a recovery run.

    Student, teacher, block map, latents and captions come from `init_from`, a run of launch.prune.
    """

    stage: str = "recover"  # the training stage
    teacher: str = ""  # run directory of the teacher; the one that init_from was pruned from if empty
    teacher_model: NetworkConfig = dataclasses.field(
        default_factory=DitConfig
    )  # the teacher's sizes, without init_from
    block_map: tuple[SizeOrZero, ...] = ()  # the teacher's block that each block learns from; init_from's if empty
    flow_weight: Weight = 1.0  # weight of the flow-matching loss beside those of `kd`
    kd: KdWeights = dataclasses.field(default_factory=KdWeights)  # weights of the distillation loss
    balance: Literal["sum", "timestep", "constant"] = "sum"  # of data and teacher: weighted, SnapGen's by time, or half
    timestep_aware: bool = False  # scale a clip's velocity distillation to the size of its flow-matching loss


@dataclasses.dataclass(frozen=True)
class TaughtTraining(DitTraining):
    """Config of a run on a taught data set, whose teacher is not in memory; its size is any."""

    stage: str = "taught"  # the training stage
    caption_dropout: Share = 0.0  # 0: captions were dropped where the data were taught
    flow_weight: Weight = 1.0  # weight of the flow-matching loss
    teacher_weight: Weight = 1.0  # weight of the relative squared error against the teacher's stored velocity


@dataclasses.dataclass(frozen=True)
class QuantiseTraining(RecoverTraining):
    """Config of a quantisation run: sizes, latents, captions, times and sampling come from `init_from`."""

    stage: str = "quantise"  # the training stage
    flow_weight: Weight = 0.0  # weight of the flow-matching loss beside those of `kd`
    bits: Annotated[float, Range(4, 16)] = 4.3  # bits a weight on average: 4, 6, 8 or 16 for each tensor


@dataclasses.dataclass(frozen=True)
class ConvertTraining(DitTraining):
    """Config of a conversion run: sizes, latents and captions come from `init_from`, the layout from `model`."""

    stage: str = "convert"  # the training stage
    teacher: str = ""  # run directory of the teacher; init_from if empty
    teacher_model: NetworkConfig = dataclasses.field(
        default_factory=DitConfig
    )  # the teacher's sizes, without init_from


@dataclasses.dataclass(frozen=True)
class DistillTraining(DitTraining, DiscriminatorConfig):
    """Config of a step distillation run.

    Sizes, latents, captions, times and, where it had one, the teacher come from `init_from`, a recovered, pruned or
    plain run (see StudentStage.build).
    """

    stage: str = "distill"  # the training stage
    teacher: str = ""  # run directory of the teacher; if empty init_from's own, or init_from if no loss asks it
    teacher_model: NetworkConfig = dataclasses.field(
        default_factory=DitConfig
    )  # the teacher's sizes, without init_from
    sampling_steps: SolverSteps = 4  # steps that the student is trained to sample in
    solver: Literal["euler", "renoise"] = "euler"  # those steps: Euler's, or a prediction of x0 that is noised afresh
    reuse: tuple[str, ...] = ()  # modules that each step leaves out (dit/step_table.py); init_from's table if empty
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)  # what the student is trained for
    few_step: str = ""  # run of the adapter that makes the teacher a few-step one, for objective.method=kdmd
    few_step_lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)  # its sizes, without a run
    critic_lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)  # the adapter that makes it kdmd's critic
    watch: CollapseConfig = dataclasses.field(default_factory=CollapseConfig)  # limits at which a run stops
    optimizer: PlayersOptimizerConfig = dataclasses.field(default_factory=PlayersOptimizerConfig)  # of both players


@dataclasses.dataclass(frozen=True)
class RewardTraining(LatentTraining, RewardConfig):
    """Config of a latent reward's run. Network, latents, captions and times are those of `init_from`."""

    stage: str = "reward"  # the training stage
    labels: str = ""  # file of labels, as launch.label writes it; labels.jsonl beside the data if empty
    mismatched: Share = 0.25  # probability that a training clip is shown with another's caption, labelled 0


@dataclasses.dataclass(frozen=True)
class CriticTraining(TrainConfig):
    """Config of the small critic's run, on a prepared data set of moving shapes."""

    stage: str = "critic"  # the training stage
    clip: str = "9x32x32"  # frames x height x width of training clips, in pixels
    images: CountOrZero = 0  # easy-vqa's images in each batch, beside the clips
    critic: CriticConfig = dataclasses.field(default_factory=CriticConfig)  # the network's sizes


@dataclasses.dataclass(frozen=True)
class RewardTuning(DitTraining):
    """Config of fine-tuning by a reward. Network, latents, captions and times are those of `init_from`."""

    stage: str = "reward_tuning"  # the training stage
    reward: TuningConfig = dataclasses.field(default_factory=TuningConfig)  # what is rewarded, and where


@dataclasses.dataclass(frozen=True)
class LazyTraining(DitTraining):
    """Config of what chooses the modules that sampling of the run in `init_from` does without; gates are trained."""

    stage: str = "lazy"  # the training stage
    sampling_steps: SolverStepsOrOwn = 0  # steps of the sampler that is made faster; 0: the run's own
    penalty: Weight = 1e-3  # weight rho of the sum over modules of 1 - score
    across: Literal["steps", "chunks"] = "steps"  # outputs are of the step before, or of a stream's chunk before
    method: Literal["sensitivity", "gates", "random"] = "sensitivity"  # choice: by measured change, gates, or chance
    cost: Literal["flops", "latency"] = "flops"  # what the target is a share of: FLOPs, or estimated phone time
    score_clips: Count = 32  # held-out clips that scores and changes are means over


@dataclasses.dataclass(frozen=True)
class ElasticTraining(DitTraining):
    """Config of a transformer whose widths are networks of their own (dit/elastic.py)."""

    stage: str = "elastic"  # the training stage
    widths: Annotated[tuple[PositiveShare, ...], Range(1, 8)] = (0.5,)  # shares of the width that are trained as well
    balance: Balance = "global"  # sizes of both networks' gradients: as they are, or equal, as a whole or by tensor
    kd_weight: Weight = 1.0  # weight of the distance of a width's velocity from the whole network's


TRAININGS: dict[str, type[TrainConfig]] = {
    "vae": VaeTraining,
    "dit": DitTraining,
    "recover": RecoverTraining,
    "quantise": QuantiseTraining,
    "convert": ConvertTraining,
    "distill": DistillTraining,
    "reward": RewardTraining,
    "critic": CriticTraining,
    "reward_tuning": RewardTuning,
    "lazy": LazyTraining,
    "elastic": ElasticTraining,
    "taught": TaughtTraining,
}


def training_class(values: Mapping[str, Any]) -> type[TrainConfig]:
    """The config class that the key `stage` names. Raises UserError for an unknown stage."""
    stage = values.get("stage")
    if stage not in TRAININGS:
        raise UserError(f"stage '{stage}' is unknown; choose one of {', '.join(TRAININGS)}")
    return TRAININGS[stage]
