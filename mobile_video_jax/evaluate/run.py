"""Evaluating a run as its stage asks, and runs as far as they are not evaluated yet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.evaluate.folder import EvaluatedRun, read_evaluation, shown_names
from mobile_video_jax.evaluate.generation import GenerationTask, evaluate_generation
from mobile_video_jax.evaluate.vae import VaeTask, evaluate_vae
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.models.denoiser import STAGES
from mobile_video_jax.train.run import NAME, read_run


def evaluate_run(run: Path, data: Path, out: Path) -> dict[str, Any]:
    """Evaluates a run with the defaults of its stage and returns what report.json in `out` holds.

    Raises UserError for a run of a stage that has no evaluation.
    """
    if is_vae(run):
        return evaluate_vae(VaeTask(run, data, out))
    steps = read_run(run)["description"].get("sampling_steps")  # a distilled run has its own, without guidance
    return evaluate_generation(GenerationTask(run, data, out, SampleConfig(steps, 1.0) if steps else SampleConfig()))


def is_vae(run: Path) -> bool:
    """Whether a run is evaluated as a VAE or, otherwise, as a transformer. Raises UserError where it is neither."""
    stage = read_run(run)["stage"]
    if stage not in ("vae", *STAGES):
        raise UserError(f"{run} is of the stage '{stage}', which has no evaluation: name a VAE or a transformer")
    return stage == "vae"


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
        evaluate_run(*task)
        found[name] = read_evaluation(out / name, name)
    return [found[name] for name in names]
