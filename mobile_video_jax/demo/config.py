"""Settings of the demo."""

import dataclasses

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import Count, FrameRate
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.stages.config import DistillTraining, DitTraining, RecoverTraining, VaeTraining


@dataclasses.dataclass(frozen=True)
class DemoConfig(Config):
    """Sizes of the demo's world, its training runs, its pruning and its evaluation."""

    world: World  # synthetic clips
    vae: VaeTraining  # training of the VAE
    dit: DitTraining  # training of the transformer
    prune: PruneConfig  # pruning of the transformer
    recover: RecoverTraining  # training of the pruned transformer
    distill: DistillTraining  # step distillation of the recovered transformer
    sampling: SampleConfig  # sampler of models that are not distilled
    few: SampleConfig  # sampler of the distilled model, and of its student before
    train_clips: Count = 3000  # synthetic clips to train on
    validation_clips: Count = 128  # synthetic clips held out for training's own evaluations
    test_clips: Count = 120  # synthetic clips with held-out compositions
    samples: Count = 120  # clips that each model is evaluated by
    fps: FrameRate = 8  # frames a second of the written clips
