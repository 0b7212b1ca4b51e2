"""What every training stage is configured by."""

import dataclasses

from mobile_video_jax.parallel.mesh import MeshConfig


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule: linear warm-up, then `cosine` or `linear` decay to zero, or `constant`.

    `muon` treats matrices and convolution kernels with rate `learning_rate` and everything else with Adam at
    `adam_learning_rate`; `adamw` uses `learning_rate` throughout.
    """

    name: str = "adamw"
    learning_rate: float = 1e-4
    adam_learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    clip_norm: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.9999


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The keys that all stages share; a stage's own config adds to them.

    Batches are made by `loader_threads` threads, of this process or of each of `loader_processes` others (launch.input
    says how many a host needs). `profile` names the steps to trace, "10-12". A step that takes `hang_seconds` makes
    every thread's stack go to stderr, again and again until it ends; compiling counts.
    """

    stage: str = ""
    data: str = ""
    init_from: str = ""
    seed: int = 0
    steps: int = 1000
    batch_size: int = 16
    log_every: int = 20
    eval_every: int = 200
    eval_batches: int = 4
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    loader_threads: int = 4
    loader_processes: int = 0
    profile: str = ""
    hang_seconds: int = 1800
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
