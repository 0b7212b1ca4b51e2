"""Settings of the study of VAEs, and what studies of the transformer share."""

import dataclasses
from typing import Annotated, Literal

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import Count, CountOrZero, Range, Seed, Share
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.stages.config import DitTraining, VaeTraining
from mobile_video_jax.vae.family import SizeName

Protocol = Literal["flops", "steps", "decoder"]
Objective = Literal["plain", "consistency", "consistency_mse", "equivariance", "eq", "adversarial", "both"]
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
