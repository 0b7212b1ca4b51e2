"""Pruning of a transformer's run: score its units, search for what to keep, slice it, write a run of its own."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from mobile_video_jax.core.claim import check_holds_only
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.core.revision import digest
from mobile_video_jax.data.location import data_folder
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.latents.store import read_manifest
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.distributed import is_first, wait_for_all
from mobile_video_jax.parallel.mesh import check_batch, make_mesh
from mobile_video_jax.prune.calibration_data import calibration_batches, calibration_stage
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.memo import LossFile
from mobile_video_jax.prune.plan import costs_of, make_plan, sizes_of
from mobile_video_jax.prune.selection import Pruned, select
from mobile_video_jax.prune.sensitivity import Scorer
from mobile_video_jax.prune.surgery import block_map, pruned_config, slice_params
from mobile_video_jax.prune.units import kept_shapes
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.lineage import PRUNED
from mobile_video_jax.train.checkpoint import newest_step, save_model
from mobile_video_jax.train.held_out import held_out_metrics
from mobile_video_jax.train.run import NAME, write_run

LOSSES = "losses.jsonl"


def prune(config: PruneConfig, run: Run | Path, data: str, out: Path, *, fsdp: int = 1) -> Pruned:
    """Prunes the transformer of a run, calibrated on encoded clips, and writes the smaller one as a run to `out`.

    All devices of the job score; `fsdp` of them share one copy of the weights, and the clips are sharded over all.
    Called again, it resumes with the losses of masked models that are in `out`. Raises UserError for a budget out of
    reach, latents of another VAE, and a folder of another model.
    """
    source = Run.open(run)
    layout = MeshConfig(data=-1, fsdp=fsdp)
    stage = calibration_stage(DitStage.of_run(source), config, data, layout)
    plan = make_plan(config, stage.denoiser)
    _check_out(out, config, source)
    mesh = make_mesh(layout)
    check_batch(config.batch_clips, mesh)
    params = source.sharded_params(mesh)
    batches = calibration_batches(config, stage, source, mesh)
    memo = LossFile(out / LOSSES, _fingerprint(config, stage, source), write=is_first())
    wait_for_all("every process has the losses that are known")
    scorer = Scorer(
        dit=stage.denoiser.network,
        params=params,
        units=plan.space.units,
        batches=batches,
        weights=config.kd,
        rows=config.rows,
        progress=_PassProgress(),
        memo=memo,
    )
    pruned = select(config, plan, scorer)
    student = slice_params(params, stage.config.transformer, pruned.keep)
    pruned = dataclasses.replace(pruned, held_out=_held_out(stage, params, student, pruned.keep))
    _write_run(config, source, out, student, pruned)
    return pruned


def _held_out(stage: DitStage, teacher: Any, student: Any, keep: Masks) -> dict[str, float]:
    """The held-out velocity losses of the model before and after pruning, without recovery."""
    smaller = DitStage(dataclasses.replace(stage.config, model=pruned_config(stage.config.transformer, keep)))
    models = {"before": (stage, teacher), "after": (smaller, student)}
    return {name: held_out_metrics(*model).get("loss", math.nan) for name, model in models.items()}


def _fingerprint(config: PruneConfig, stage: DitStage, run: Run) -> str:
    """A digest of all that the losses of masked models depend on."""
    settings = {name: getattr(config, name) for name in ("clips", "times", "batch_clips", "group", "seed")}
    data = [read_manifest(data_folder(folder)) for folder in stage.config.data.split(",")]
    return digest([run.record, run.step, settings, dataclasses.asdict(config.kd), data])


def _check_out(out: Path, config: PruneConfig, run: Run) -> None:
    """Raises UserError where the folder holds anything but an unfinished or the same pruning."""
    record = read_json(out / PRUNED) if (out / PRUNED).exists() else None
    if record is None:
        check_holds_only(out, (LOSSES,), "pruned model")
        return
    teacher = Run.open(out).find(record["teacher"]) if (out / NAME).exists() else record["teacher"]
    if record["config"] != plain(config) or teacher != run.name:
        raise UserError(
            f"{out} holds a model that was pruned from {record['teacher']} in another way: use another --out"
        )


def _write_run(config: PruneConfig, run: Run, out: Path, params: Any, pruned: Pruned) -> None:
    """Writes the files of a run: PRUNED first, by which a stopped command knows its own folder, run.json last."""
    shapes = kept_shapes(pruned.keep, pruned.plan.space.units.shapes)
    training = DitStage.of_run(run).config
    record = {
        "teacher": run.name,
        "teacher_step": run.step,
        "config": plain(config),
        "block_map": list(block_map(pruned.keep)),
        "keep": {kind: mask.astype(int).tolist() for kind, mask in pruned.keep._asdict().items()},
        "sizes": sizes_of(shapes),
        "costs": costs_of(pruned.plan, shapes),
    }
    saved = newest_step(out) is not None
    wait_for_all("every process knows whether the model is saved")
    if is_first():
        write_json(out / PRUNED, record)
        run.vae_run().copy(out / "vae")
    if not saved:
        save_model(out, run.step or 0, params)
    if not is_first():
        return
    student = dataclasses.replace(training, model=pruned_config(training.transformer, pruned.keep))
    sampling = dataclasses.asdict(run.denoiser.sampling) | {"reuse": ()}  # a table is for the blocks as they were
    write_run(out, "dit", plain(student), Denoiser(student).describe(), sampling)


class _PassProgress:
    """Progress of passes over masked models, each from 0."""

    def __init__(self) -> None:
        self._progress = Progress("sensitivity:", 0)

    def __call__(self, done: int, total: int) -> None:
        if done == 0:
            self._progress = Progress("sensitivity:", total)
        else:
            self._progress.report(done, "masked models")
