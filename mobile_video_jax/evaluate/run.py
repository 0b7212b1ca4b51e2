"""Evaluating a run as its stage asks, and runs as far as they are not evaluated yet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.evaluate.folder import EvaluatedRun, read_evaluation, shown_names
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


def evaluated_runs(paths: Sequence[Path], data: Path | None, out: Path) -> list[EvaluatedRun]:
    """Reads evaluations; those of `paths` that are run directories are evaluated first, into folders of `out`.

    Raises UserError for what is neither, and for run directories without `data`, before any run is evaluated.
    """
    found: dict[str, EvaluatedRun] = {}
    tasks: dict[str, tuple[Path, Path, Path]] = {}
    names = shown_names(paths)
    for name, path in zip(names, paths, strict=True):
        if not (path / NAME).exists():
            found[name] = read_evaluation(path, name)
        elif data is None:
            raise UserError(f"{path} is a run directory: add --data=DIR to evaluate it, or name its evaluation")
        else:
            tasks[name] = (path, data, out / name)
    for name, task in tasks.items():
        run, data, folder = task
        evaluate_run(Run.open(run), data, folder)
        found[name] = read_evaluation(out / name, name)
    return [found[name] for name in names]
