"""Pruning a transformer's run: score its units, search for what to keep, cut it out, and leave a run of its own."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mobile_video_jax.core.claim import check_holds_only
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.progress import Progress, say
from mobile_video_jax.core.revision import digest
from mobile_video_jax.data.cache import data_folder
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.latents.store import read_manifest
from mobile_video_jax.models.denoiser import restore_on
from mobile_video_jax.models.vae import copy_bundle
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, put_batch
from mobile_video_jax.prune.baselines import chance, magnitude
from mobile_video_jax.prune.calibration import Calibration, calibration
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.curves import Point, level_curves
from mobile_video_jax.prune.joint import joint
from mobile_video_jax.prune.memo import LossFile
from mobile_video_jax.prune.plan import Plan, costs_of, make_plan, sizes_of
from mobile_video_jax.prune.search import Score, greedy
from mobile_video_jax.prune.sensitivity import Scorer, rank_correlation
from mobile_video_jax.prune.surgery import block_map, pruned_config, slice_params
from mobile_video_jax.prune.units import LEVEL_OF, LEVELS, Unit, kept_shapes
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import PRUNED
from mobile_video_jax.train.checkpoint import newest_step, save_model
from mobile_video_jax.train.run import NAME, write_run
from mobile_video_jax.vae.latent_stats import LatentStats

LOSSES = "losses.jsonl"


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What a search found: the plans by name with their losses, the one that was cut, and what it rests on."""

    plan: Plan
    keeps: dict[str, Masks]
    losses: dict[str, float]
    chosen: str
    rises: dict[Unit, float]
    correlation: dict[str, float]
    curves: dict[str, list[Point]]
    held_out: dict[str, float]

    @property
    def keep(self) -> Masks:
        """What was kept."""
        return self.keeps[self.chosen]


def prune(config: PruneConfig, run: Path, data: str, out: Path, *, fsdp: int = 1) -> Pruned:
    """Prunes the transformer of a run with the help of an encoded data set, and leaves the smaller one in `out`.

    `fsdp` devices share one copy of the weights, the others the clips. Started again, it goes on with the losses of
    masked models that it has. Raises UserError for a budget out of reach, latents of another VAE, and a folder of
    another model.
    """
    stage = _calibrating(DitStage.of_run(run), config, data)
    plan = make_plan(config, stage.denoiser)
    _check_out(out, config, run)
    mesh = make_mesh(MeshConfig(data=-1, fsdp=fsdp), jax.local_devices())
    check_batch(config.batch_clips * config.times, mesh)
    batches = [jax.device_put(batch, batch_sharding(mesh)) for batch in _calibration_batches(config, stage, run)]
    params = restore_on(mesh, run, stage.denoiser)
    memo = LossFile(out / LOSSES, _losses_are_of(config, stage, run))
    scorer = Scorer(stage.denoiser.network, params, plan.space.units, batches, config.kd, config.rows, _Told(), memo)
    found = _search(config, plan, scorer)
    model = slice_params(params, stage.config.model, found.keep)
    found = dataclasses.replace(found, held_out=_held_out(stage, params, model, found.keep))
    _leave(config, run, out, stage, model, found)
    return found


def _calibrating(stage: DitStage, config: PruneConfig, data: str) -> DitStage:
    """The stage on the data set named, in batches of the calibration's size."""
    old = stage.config
    own = dataclasses.replace(old, data=data or old.data, mesh=MeshConfig(data=1), pad_durations=False)
    return DitStage(dataclasses.replace(own, batch_size=config.batch_clips, token_budget=0))


def _calibration_batches(config: PruneConfig, stage: DitStage, run: Path) -> list[Calibration]:
    """The first clips of the training split, noisy. Raises UserError for latents of another VAE, or too few clips."""
    folder = data_folder(stage.config.data.split(",")[0])
    found = list(itertools.islice(stage.ordered_batches("train"), config.clips // config.batch_clips))
    if LatentStats.load(folder / "vae") != LatentStats.load(run / "vae"):
        raise UserError(f"{folder} holds latents of another VAE than {run} was trained on: encode them with its own")
    if (clips := len(found) * config.batch_clips) < config.clips:
        raise UserError(f"{folder} holds {clips} of the {config.clips} clips for calibration: lower --config.clips")
    shift = stage.denoiser.time_shift(stage.denoiser.tokens)
    keys = jax.random.split(jax.random.key(config.seed), len(found))
    names = ("latents", "text", "text_mask")
    return [
        calibration({name: batch[name] for name in names}, key, times=config.times, shift=shift)
        for batch, key in zip(found, keys, strict=True)
    ]


def _search(config: PruneConfig, plan: Plan, scorer: Scorer) -> Pruned:
    """Scores the units and searches; by the weights alone, or by chance, there is nothing to compare."""
    space, kinds = plan.space, [kind for level in plan.space.levels for kind in LEVELS[level]]
    units = [unit for kind in kinds for unit in space.units.kept(space.units.all(), kind)]
    score = _score(config, scorer)
    say(f"prune: scoring each of {len(units)} units, then searching, from blocks to channels")
    rises = dict(zip(units, score(space.units.all(), units).tolist(), strict=True))
    keeps, curves, correlation = {"greedy": greedy(space, plan.stages, score)}, {}, {}
    if config.score == "kd":
        keeps["joint"] = joint(space, plan.limits, rises)
        curves = level_curves(scorer, space, rises)
        correlation = _correlation(config, scorer, rises)
    losses = dict(zip(keeps, scorer.losses(list(keeps.values())).tolist(), strict=True))
    return Pruned(plan, keeps, losses, config.search, rises, correlation, curves, {})


def _correlation(config: PruneConfig, scorer: Scorer, rises: dict[Unit, float]) -> dict[str, float]:
    """Of exact and first-order scores of heads and channels, where both were scored exactly."""
    widths = [unit for unit in rises if unit.kind != "block"]
    if not widths or "taylor" in (config.heads, config.channels):
        return {}
    first = scorer.taylor(scorer.units.all(), widths, probes=config.probes, seed=config.seed)
    return rank_correlation(widths, np.array([rises[unit] for unit in widths]), first)


def _score(config: PruneConfig, scorer: Scorer) -> Score:
    if config.score == "random":
        return chance(config.seed)
    if config.score == "magnitude":
        return magnitude(scorer.params, scorer.units)
    return _kd_score(config, scorer)


def _kd_score(config: PruneConfig, scorer: Scorer) -> Score:
    """The rise of the distillation loss: exact for blocks, exact or to first order for heads and channels."""
    scoring = {"block": "exact", "head": config.heads, "channel": config.channels}

    def score(keep: Masks, units: Sequence[Unit]) -> np.ndarray:
        exact = np.array([scoring[LEVEL_OF.get(unit.kind, "block")] == "exact" for unit in units])
        rises = np.zeros(len(units))
        if exact.any():
            rises[exact] = scorer.exact(keep, [unit for unit, is_exact in zip(units, exact, strict=True) if is_exact])
        if not exact.all():
            others = [unit for unit, is_exact in zip(units, exact, strict=True) if not is_exact]
            rises[~exact] = scorer.taylor(keep, others, probes=config.probes, seed=config.seed)
        return rises

    return score


def _held_out(stage: DitStage, params: Any, model: Any, keep: Masks) -> dict[str, float]:
    """The held-out velocity loss of the model before, and of the one cut out of it, before any recovery."""
    smaller = DitStage(dataclasses.replace(stage.config, model=pruned_config(stage.config.model, keep)))
    return {"before": _loss(stage, params), "after": _loss(smaller, model)}


def _loss(stage: DitStage, params: Any) -> float:
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    evaluate = jax.jit(stage.evaluate_batch)
    rows = []
    for i, batch in enumerate(stage.eval_batches()):
        batch.pop("record")
        rows.append(float(evaluate(params, put_batch(batch, mesh), jax.random.key(i))["loss"]))
    return float(np.mean(rows))


def _losses_are_of(config: PruneConfig, stage: DitStage, run: Path) -> str:
    """A digest of all that the losses of masked models depend on."""
    settings = {name: getattr(config, name) for name in ("clips", "times", "batch_clips", "group", "seed")}
    data = [read_manifest(data_folder(folder)) for folder in stage.config.data.split(",")]
    return digest([read_json(run / NAME), newest_step(run), settings, dataclasses.asdict(config.kd), data])


def _check_out(out: Path, config: PruneConfig, run: Path) -> None:
    """Raises UserError where the folder holds anything but an unfinished or the same pruning."""
    made = read_json(out / PRUNED) if (out / PRUNED).exists() else None
    if made and (made["config"] != plain(config) or made["teacher"] != str(run.absolute())):
        raise UserError(f"{out} holds a model that was pruned from {made['teacher']} in another way: use another --out")
    if made is None:
        check_holds_only(out, (LOSSES,), "pruned model")


def _leave(config: PruneConfig, run: Path, out: Path, stage: DitStage, params: Any, found: Pruned) -> None:
    """Writes what makes the folder a run: PRUNED first, by which a stopped command knows its own, run.json last."""
    shapes, training = kept_shapes(found.keep), DitStage.of_run(run).config
    record = {
        "teacher": str(run.absolute()),
        "config": plain(config),
        "block_map": list(block_map(found.keep)),
        "keep": {kind: mask.astype(int).tolist() for kind, mask in found.keep._asdict().items()},
        "sizes": sizes_of(shapes),
        "costs": costs_of(found.plan, shapes),
    }
    write_json(out / PRUNED, record)
    copy_bundle(run / "vae", out / "vae")
    if newest_step(out) is None:
        save_model(out, newest_step(run) or 0, params)
    smaller = DitStage(dataclasses.replace(training, model=pruned_config(training.model, found.keep)))
    write_run(out, "dit", plain(dataclasses.replace(smaller.config, stage="dit")), smaller.description())


class _Told:
    """Progress of one pass after the other over masked models."""

    def __init__(self) -> None:
        self._progress = Progress("sensitivity:", 0)

    def __call__(self, done: int, total: int) -> None:
        if done == 0:
            self._progress = Progress("sensitivity:", total)
        else:
            self._progress.report(done, "masked models")
