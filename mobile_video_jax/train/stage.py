"""Stage: the interface between the one training loop and what it trains."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Frames, Rng, Scalar
from mobile_video_jax.cost.flops import count_flops, count_parameters
from mobile_video_jax.train.config import TrainConfig

Params = Any
Batch = dict[str, Any]
Metrics = dict[str, Scalar]
Loss = Callable[[Params, Batch, Rng], tuple[Scalar, Metrics]]


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one step: tokens (latent positions) of the batch, and FLOPs of forward and backward passes."""

    tokens: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Samples:
    """Clips that a stage shows while it trains, by name, at `frame_rate` frames a second, and metrics of them."""

    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    clips: dict[str, Frames] = dataclasses.field(default_factory=dict)
    frame_rate: float = 1.0


class Stage(abc.ABC):
    """A training stage. It defines the abstract methods, and overrides others where their default does not fit.

    Parameters are a dict; its top-level names are the parts of the network.
    """

    config: TrainConfig

    def __init__(self, config: TrainConfig):
        self.config = config

    @classmethod
    def build(cls, config: Any) -> "Stage":
        """The stage of a config, completed from the runs that the config names."""
        return cls(config)

    # The core.

    @abc.abstractmethod
    def init(self, rng: Rng) -> Params:
        """Random parameters, each with its logical axis names."""

    @abc.abstractmethod
    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        """The loss of a batch, and metrics for the log. Pure: the loop compiles its gradient."""

    @abc.abstractmethod
    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out metrics of the inference parameters, one of them "loss". Pure: the loop compiles it."""

    @abc.abstractmethod
    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        """Training batches without end, as far as they are this process's share of the mesh.

        "record" holds the ids of a batch's records, for reports of a failure. Raises UserError for data that do not
        fit, and for a missing run to start from.
        """

    @abc.abstractmethod
    def eval_batches(self, mesh: Mesh) -> Iterable[dict[str, np.ndarray]]:
        """Held-out batches, the same at every call, with the "weight" of each clip (train/held_out.py)."""

    @abc.abstractmethod
    def abstract_batch(self, devices: int | None = None) -> Batch:
        """The shapes of a global batch without "record", on so many devices; None: on those of this job."""

    @abc.abstractmethod
    def batch_tokens(self, devices: int | None = None) -> int:
        """Latent positions of that batch."""

    def batch_sizes(self) -> dict[str, int]:
        """Clips of a batch by the shape of its clips, where the mesh decides them: a saved position counts in them."""
        return {}

    # Steps that differ.

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses that steps are taken with."""
        return (self.loss,)

    def loss_index(self, step: jax.Array) -> jax.Array:
        """The index of a step's loss, traced; metrics that this one has not are NaN and are not logged."""
        return jnp.zeros((), jnp.int32)

    # Parameters.

    @functools.cached_property
    def boxed_shapes(self) -> Params:
        """The shapes of `init`'s parameters, each with its logical axis names; traced once."""
        return jax.eval_shape(self.init, jax.random.key(0))

    @functools.cached_property
    def shapes(self) -> Params:
        """The shapes of `init`'s parameters."""
        return nn.unbox(self.boxed_shapes)

    @property
    def frozen(self) -> frozenset[str]:
        """The parts that are not trained."""
        return frozenset()

    def ema_params(self, params: Params) -> Params:
        """The sub-tree that is averaged, evaluated and checkpointed.

        A frozen part that is left empty in it is evaluated as it is in `params`, and not checkpointed.
        """
        return params

    def pretrained(self, target: Params) -> Params:
        """The parts of `target` that start from another run or file, sharded like it; others are random.

        A resumed run asks for its frozen parts alone.
        """
        return {}

    # The run directory.

    def check(self, run: Path) -> None:
        """Raises UserError where a run was begun with other inputs than the stage's. Nothing is written yet."""
        return

    @property
    def sampling(self) -> Mapping[str, Any] | None:
        """Sampling settings of the run, for run.json (models.sampling.Sampling); None for what is not sampled."""
        return None

    def start(self, run: Path) -> None:
        """Writes what the run directory needs beside its checkpoints, before the first step and on resume."""
        return

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None:
        """Writes what the run directory needs of the inference parameters, after the last step."""
        return

    # Monitoring.

    @property
    def sample_every(self) -> int:
        """Steps between calls of `sample`; 0: never."""
        return 0

    def sample(self, params: Params, step: int, run: Path) -> Samples:
        """Writes samples of the inference parameters into the run, and returns them for the log."""
        return Samples()

    def collapse_reason(self, metrics: Mapping[str, float]) -> str | None:
        """The sign of collapse in the metrics of a log line with an evaluation, which ends the run; or None."""
        return None

    # Costs and facts, from shapes alone.

    def cost(self, devices: int | None = None) -> Cost:
        """The cost of a step, on so many devices; None: on those of this job."""
        flops = count_flops(self.loss, self.shapes, self.abstract_batch(devices), jax.random.key(0))
        # The backward pass costs two products for each one of the forward pass.
        return Cost(self.batch_tokens(devices), 3 * sum(flops.values()))

    def description(self) -> dict[str, Any]:
        """The facts of the model, for run.json."""
        return {"parameters": count_parameters(self.ema_params(self.shapes))}

    def inspect(self) -> dict[str, Any]:
        """The facts of the model, and the costs of its forward pass by part, for launch.inspect."""
        return self.description()
