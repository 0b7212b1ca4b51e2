"""Settings that every training stage shares."""

import dataclasses
from typing import Annotated, Any, Literal

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import (
    Count,
    CountOrZero,
    Decay,
    Positive,
    Range,
    Rate,
    Seed,
    Share,
    Size,
    SizeOrZero,
    Weight,
)
from mobile_video_jax.parallel.config import MeshConfig


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Config):
    """An optimizer and its schedule: a linear warm-up, then a decay to zero or none."""

    name: Literal["adamw", "muon"] = "adamw"  # muon: for matrices and convolution kernels, Adam for everything else
    learning_rate: Rate = 1e-4  # peak step size; with muon, that of matrices and kernels
    adam_learning_rate: Rate = 1e-3  # with muon: peak step size of everything else
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # decay to zero at the last step, or none
    schedule_steps: CountOrZero = 0  # steps that warm-up and decay take; 0: the `steps` that the run was begun with
    warmup: Share = 0.03  # share of all steps in which the rate rises from zero
    weight_decay: Weight = 0.01  # decoupled decay of kernels, times the learning rate
    beta1: Decay = 0.9  # decay of the mean of gradients, a step
    beta2: Decay = 0.99  # decay of the mean of squared gradients, a step
    clip_norm: Positive = 1.0  # largest global norm of the gradients; larger ones are scaled down to it
    skip_steps: CountOrZero = 3  # steps in a row dropped because they are not finite or spike; one more ends the run
    spike_sigmas: Weight = 0.0  # a spike: standard deviations of the norm above the last 128 norms' mean; 0: none is
    reduce_dtype: Literal["bfloat16", "float32"] = "bfloat16"  # that devices' gradients of bf16 layers are summed in
    accumulate: Count = 1  # parts that a batch is computed in, one after the other, to save memory
    ema_decay: Decay = 0.9999  # decay of the averaged parameters, a step; 0 takes the last ones

    def averages(self, step: Any) -> Any:
        """True at steps that change the averaged parameters."""
        return True


@dataclasses.dataclass(frozen=True)
class PlayersOptimizerConfig(OptimizerConfig):
    """The generator's optimizer, and that of the parts that train against it.

    Both have their own schedule, moments and clipping; accumulation, sums over devices and averaging are those of the
    generator.
    """

    generator_every: Count = 1  # steps from one update of the generator to the next; the others update at each
    generator_alone: CountOrZero = 0  # first steps, in which the generator alone learns, without its opponent, at each
    opponent: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)  # discriminator or critic

    def updates_generator(self, step: Any) -> Any:
        """True at steps, from 0, that update the generator."""
        later = step - self.generator_alone
        return (later < 0) | ((later + 1) % self.generator_every == 0)

    def generator_updates(self, steps: int) -> int:
        """The generator's updates in so many steps."""
        alone = min(steps, self.generator_alone)
        return alone + (steps - alone) // self.generator_every

    def averages(self, step: Any) -> Any:
        return self.updates_generator(step)


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """The keys that all stages share; a stage's own config adds to them."""

    stage: str = ""  # the training stage, a key of stages.config.TRAININGS
    data: str = ""  # folder of the prepared or encoded data set; gs:// is read too; synthetic: random batches
    init_from: str = ""  # run directory to start from, where the stage has one
    seed: Seed = 0  # of parameters, noise and the order of the data
    steps: Count = 1000  # optimizer steps of the whole run
    batch_size: Count = 16  # clips a step, over all devices
    log_every: CountOrZero = 20  # steps between lines of metrics.jsonl; 0: where evaluation or samples write one
    eval_every: CountOrZero = 200  # steps between evaluations on held-out clips; 0: never
    eval_batches: Count = 4  # held-out batches of one evaluation
    checkpoint_every: CountOrZero = 500  # steps between checkpoints; 0: the last step's alone, or where it is stopped
    keep_checkpoints: Count = 2  # newest checkpoints that stay on disk, beside the best one
    keep_every: CountOrZero = 0  # checkpoints at multiples of so many steps stay for good; 0: none
    loader_threads: Size = 4  # threads that make batches, in this process or in each loader process
    loader_processes: SizeOrZero = 0  # processes that make batches beside this one; launch.input says how many
    wandb: str = ""  # project of Weights & Biases that metrics and clips also go to; none if empty
    profile: str = ""  # steps to trace for TensorBoard, FIRST-LAST as 10-12; none if empty
    profiler_port: Annotated[int, Range(0, 65_535)] = 0  # port at which a profiler may ask for a trace at any time
    hang_seconds: Count = 1800  # a step that takes longer prints every thread's stack, and twice that ends the process
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)  # optimizer and its schedule
    auto: bool = False  # on TPUs: mesh, model.remat and batch_size that suit the slice, where no flag sets them
    xla_flags: str = ""  # of the TPU's compiler, "--xla_A=true --xla_B=3", or none; the generation's if empty
    splash_blocks: tuple[Size, Size] = (512, 1536)  # most queries and keys in a block of TPUs' attention kernel
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)  # devices by what they share
