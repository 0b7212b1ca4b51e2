"""Common start of studies of the transformer: clips, a VAE, latents, and a trained transformer for each seed."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.metrics.accuracy import ALL, accuracies
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.studies.cells import open_study, run_cells, share
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.train.loop import train

TEACHER = "teacher"
RIGHT = "right.json"

# The arm of each cell, the seed of its teacher and what else `run` takes, by its name.
Cells = Mapping[str, tuple[Any, ...]]


def cells_of(study: ChainStudy, first: Iterable[str], arms: Sequence[str]) -> Cells:
    """The cells, seed after seed: those of `first`, then the arms."""
    return {f"{arm}-seed{seed}": (arm, seed) for seed, arm in itertools.product(study.seeds, (*first, *arms))}


def run_chain_study(
    study: ChainStudy,
    grid: Cells,
    out: Path,
    run: Callable[..., dict[str, Any]],
    *,
    also: Callable[[int], object] = lambda seed: None,
    worker: int = 0,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are.

    Worker 0 makes what all cells share, then calls `also` for each seed. `run` fills the folder of a cell: it takes an
    arm, a seed, what else the grid says, and the folder.
    """

    def shared() -> None:
        make_chain(study, out)
        for seed in study.seeds:
            also(seed)
        write_json(out / "shared.json", {"commit": git_revision(), "hardware": hardware()})

    open_study(study, out, worker=worker, workers=workers)
    share(shared, (out / "shared.json").exists, worker=worker)

    def cell(name: str, folder: Path) -> dict[str, Any]:
        arm, seed, *others = grid[name]
        origin = {"arm": arm, "seed": seed, "commit": git_revision(), "hardware": hardware()}
        return origin | run(arm, seed, *others, folder)

    return run_cells(list(grid), out, cell, worker=worker, workers=workers)


def make_chain(study: ChainStudy, out: Path) -> None:
    """Renders the clips, trains the VAE, encodes, and trains the transformers; finished parts are kept."""
    clip, splits = ClipShape.parse(study.vae.clip), ("train", "validation", "test")
    counts = dict(zip(splits, (study.train_clips, study.validation_clips, study.test_clips), strict=True))
    prepare("moving_shapes", out / "data", world=study.world, clip=clip, sizes=counts)
    train(VaeStage(dataclasses.replace(study.vae, data=str(out / "data"))), out / "vae")
    encode_dataset(
        out / "vae",
        out / "data",
        out / "latents",
        EncodeOptions(study.dit.text_encoder, (study.dit.clip,), shard_records=4096),
    )
    for seed in study.seeds:
        make_teacher(study, out, seed)


def make_teacher(study: ChainStudy, out: Path, seed: int) -> None:
    """Trains a seed's transformer until enough samples are right, or for all its steps.

    It is checked at each of its checkpoints, and the run's RIGHT has the share of samples right by step.
    """
    run, config = teacher_run(out, seed), teacher_config(study, out, seed)
    optimizer = dataclasses.replace(config.optimizer, schedule_steps=config.optimizer.schedule_steps or config.steps)
    config = dataclasses.replace(config, optimizer=optimizer)
    right: dict[str, float] = read_json(run / RIGHT) if (run / RIGHT).exists() else {}
    period = config.checkpoint_every if study.teacher_right else config.steps
    for steps in range(period, config.steps + 1, period):
        if max(right.values(), default=0.0) >= study.teacher_right > 0:
            return
        if str(steps) not in right:
            train(DitStage(dataclasses.replace(config, steps=steps)), run)
            right[str(steps)] = _share_right(study, run) if study.teacher_right else 0.0
            write_json(run / RIGHT, right)
            measured = f"{right[str(steps)]:.1%} of {study.samples} samples right" if study.teacher_right else "trained"
            say(f"teacher {seed}: {measured} after {steps} steps")


def _share_right(study: ChainStudy, run: Path) -> float:
    samples = generate_samples(run, study.world, study.samples, study.sampling)
    return accuracies(study.world, samples.pairs)[ALL].value


def teacher_config(study: ChainStudy, out: Path, seed: int) -> DitTraining:
    """The config of a seed's transformer."""
    return dataclasses.replace(study.dit, data=str(out / "latents"), seed=seed)


def teacher_run(out: Path, seed: int) -> Path:
    """The run of a seed's transformer."""
    return out / "teachers" / f"seed{seed}"
