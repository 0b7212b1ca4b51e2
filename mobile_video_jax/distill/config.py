"""Settings of distillation: its losses, and the limits at which a collapsing run stops."""

import dataclasses
from typing import Annotated, Literal

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import GuidanceScale, Positive, Range, Share, Size, SizeOrZero, SolverSteps, Weight

ShiftOrOwn = Annotated[float, Range(0, 1000)]
Method = Literal["adversarial", "dmd", "dmd2", "consistency", "kd", "kdmd"]
Balance = Literal["none", "global", "tensor"]  # of two gradients: as they are, of one size as a whole or by tensor
Factor = Annotated[float, Range(1, 1_000_000, also=0)]


@dataclasses.dataclass(frozen=True)
class KdWeights(Config):
    """Weights of the distillation loss against a teacher on the same noisy clips (distill/kd.py)."""

    velocity: Weight = 1.0  # of the velocity's relative squared error
    features: Weight = 0.5  # of the hidden features' relative squared error, a mean over blocks

    @property
    def any(self) -> bool:
        """True where the loss needs a teacher."""
        return self.velocity > 0 or self.features > 0


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(Config):
    """Losses of step distillation (distill/objective.py); all weights hold at once."""

    method: Method = "adversarial"  # hinge losses, distribution matching, both (dmd2), sCM, distillation alone, K-DMD
    guidance: GuidanceScale = 5.0  # guidance scale of the teacher that the student learns from
    teacher_steps: SolverSteps = 2  # teacher steps per student step, whose mean velocity is the target
    own_states: Share = 0.5  # share of clips at states from the student's own previous step (backward simulation)
    rollout: bool = False  # own states come from pure noise by all steps before, not by one from noised data
    target: Literal["data", "teacher"] = "teacher"  # clips that `distance` is measured to; data: at times to 0.5 alone
    judge_shift: ShiftOrOwn = 0.0  # time shift of clips re-noised for the discriminator or critic; 0: the run's own
    adversarial: Weight = 0.1  # weight of the generator's hinge loss
    matching: Weight = 1.0  # weight of the distribution matching loss
    distance: Weight = 1.0  # weight of the pseudo-Huber distance of x0 to `target`
    kd: Weight = 1.0  # weight of the velocity's squared error against the teacher's; of kdmd the few-step teacher's
    features: Weight = 1.0  # weight of the last features' relative squared error against the few-step teacher's
    flow: Weight = 0.0  # weight of flow matching on the data, at uniform times
    r1: Weight = 1.0  # weight of the discriminator's gradient penalty
    r1_form: Literal["finite", "exact"] = "finite"  # a finite difference, or the gradient itself
    r1_sigma: Positive = 0.05  # distance of the finite difference, in deviations of the latents
    mismatched: Weight = 0.0  # weight of the discriminator's loss on real clips with another clip's caption, as fakes
    same_noise: bool = False  # real and generated clips are re-noised with the same noise
    real: Literal["data", "teacher"] = "data"  # real clips of the discriminator: data, or the teacher's guided samples

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "kd" and not (self.kd or self.distance or self.flow):
            raise UserError(
                "objective.kd, objective.distance and objective.flow are all 0: method kd has no other loss"
            )
        if self.method == "consistency" and self.flow:
            raise UserError("objective.method=consistency has no other loss: set objective.flow=0")

    @property
    def asks_teacher(self) -> bool:
        """True where a loss compares with the teacher's answers, not with data alone."""
        answers = self.kd or self.real == "teacher" or (self.distance and self.target == "teacher")
        return self.method not in ("adversarial", "kd") or bool(answers)


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(Config):
    """The discriminator's heads, and what of the teacher they read; part of DistillTraining.

    Of a U-Net they read places of its way down (distill/unet_discriminator.py).
    """

    head: Literal["dit", "conv"] = "dit"  # the discriminator's head: transformer blocks or convolutions
    head_blocks: Size = 1  # blocks of that head
    head_start: Literal["fresh", "teacher"] = "fresh"  # first block of a dit head: fresh, or the teacher's next block
    trunk_blocks: SizeOrZero = 0  # the teacher's first blocks that the head reads; 0: half of them
    taps: tuple[
        Size, ...
    ] = ()  # blocks of the teacher, from 1, that a head each reads; empty: the last of trunk_blocks, or of each level
    pooling: Literal["clip", "frame", "token"] = "clip"  # what one logit is of: a clip, a latent frame or a token


@dataclasses.dataclass(frozen=True)
class CollapseConfig(Config):
    """Limits at which a run stops as its samples collapse; 0 switches one off, all may change when a run resumes.

    In a tiny world good runs stay within 1.3, 1.1 and 0.05; one that a discriminator alone taught went to 2.5, 1.6
    and 0.6.
    """

    motion: Factor = 3.0  # largest ratio of the samples' motion to the teacher's, and of the reverse
    spread: Factor = 1.5  # the same of the latents' standard deviation
    colour: Weight = 0.3  # largest distance of the channels' means and deviations, in variances of the latents
    margin: Weight = 20.0  # largest distance of real from fake logits; the hinge losses ask for 2
