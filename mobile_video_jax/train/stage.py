"""What the one training loop asks of a stage."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.train.config import TrainConfig

Params = Any
Batch = dict[str, Any]
Metrics = dict[str, Scalar]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one step costs: tokens (latent places) of the batch, and FLOPs of forward and backward passes."""

    tokens: int
    flops: int


@runtime_checkable
class Stage(Protocol):
    """A training stage: its data, its loss, how it is judged and what it leaves in the run directory.

    `init` returns parameters that carry their logical axis names; their top-level names are the parts of the network.
    Parts in `frozen` are not trained. `model` picks what a run leaves for use: the loop averages it, evaluates it and
    saves it; a frozen part that it leaves empty is evaluated as it is and not saved. `given` reads those parts of a
    target that are not drawn at random, from other runs or files, with the placement asked for; when a run goes on,
    frozen parts alone. `loss` and `evaluate_batch` are pure and are compiled by the loop. Every `sample_every` steps
    (0: never) `sample` leaves in the run what the averaged model makes by then, and returns measures of it for the log.
    `watch` says what an evaluation's line of the log shows to have gone wrong, which stops the run. Every batch holds
    "record", the ids of its records, for the report of a failure. `abstract_batch` has the shapes of all else in the
    global batch, and `cost` is of that batch, on so many devices; on those of this job where none are told.
    """

    @property
    def config(self) -> TrainConfig: ...

    @property
    def sample_every(self) -> int: ...

    @property
    def sampling(self) -> Mapping[str, Any] | None: ...

    @property
    def frozen(self) -> frozenset[str]: ...

    def init(self, rng: Rng) -> Params: ...

    def model(self, params: Params) -> Params: ...

    def given(self, target: Params) -> Params: ...

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]: ...

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics: ...

    def sample(self, params: Params, step: int, run: Path) -> dict[str, float]: ...

    def watch(self, metrics: Mapping[str, float]) -> str | None: ...

    def train_batches(self) -> grain.IterDataset: ...

    def eval_batches(self) -> Iterable[dict[str, np.ndarray]]: ...

    def abstract_batch(self, devices: int | None = None) -> Batch: ...

    def cost(self, devices: int | None = None) -> Cost: ...

    def description(self) -> dict[str, Any]: ...

    def inspect(self) -> dict[str, Any]: ...

    def start(self, run: Path) -> None: ...

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None: ...
