"""Evaluation of a run as its stage asks, and of those of several runs that are not evaluated yet."""

import collections
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.evaluate.evaluated_run import EvaluatedRun, read_evaluation
from mobile_video_jax.evaluate.generation import GenerationTask, evaluate_generation
from mobile_video_jax.evaluate.vae import VaeTask, evaluate_vae
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.train.run import NAME


def evaluate_run(run: Run, data: Path, out: Path) -> dict[str, Any]:
    """Evaluates a run with the defaults of its stage, sampled as it says, and returns report.json of `out`.

    Raises UserError for a run that holds neither a VAE nor a denoiser.
    """
    if run.stage == VAE:
        return evaluate_vae(VaeTask(run, data, out))
    return evaluate_generation(GenerationTask(run, data, out))


def evaluated_runs(
    paths: Sequence[Path], data: Path | None, out: Path, *, step: int | None = None, best: bool = False
) -> list[EvaluatedRun]:
    """Reads evaluations; those of `paths` that are run directories are evaluated first, into folders of `out`.

    Of these `step` or `best` chooses the checkpoints. Raises UserError for what is neither, for run directories without
    `data`, and for a choice without run directories, before any run is evaluated.
    """
    names = shown_names(paths)
    runs = {name: path for name, path in zip(names, paths, strict=True) if (path / NAME).exists()}
    evaluations = {
        name: read_evaluation(path, name) for name, path in zip(names, paths, strict=True) if name not in runs
    }
    if not runs and (best or step is not None):
        raise UserError(
            "--step and --best choose checkpoints of run directories, evaluations have theirs: leave it out"
        )
    opened = {name: Run.open(path, step=step, best=best) for name, path in runs.items()}
    for done, (name, run) in enumerate(opened.items()):
        if data is None:
            raise UserError(f"{run} is a run directory: add --data=DIR to evaluate it, or name its evaluation")
        say(f"══ evaluating {name}: run {done + 1} of {len(runs)}")
        evaluate_run(run, data, out / name)
        evaluations[name] = read_evaluation(out / name, name)
    return [evaluations[name] for name in names]


def shown_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart; one named again is numbered."""
    parts = [Path(os.path.abspath(path)).parts[1:] for path in paths]
    names, times = [], collections.Counter[str]()
    for path in parts:
        others = [other for other in parts if other != path]
        depths = [depth for depth in range(1, len(path)) if all(other[-depth:] != path[-depth:] for other in others)]
        name = "/".join(path[-min(depths, default=len(path)) :])
        times[name] += 1
        names.append(f"{name} ({times[name]})" if times[name] > 1 else name)
    return names
