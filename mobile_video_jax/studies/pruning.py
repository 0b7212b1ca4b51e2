"""The study of pruning: which units go and how the rest recovers, from one strong teacher to equal budgets."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from mobile_video_jax.core.files import read_json, replacing
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.metrics.accuracy import accuracies
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.config import Budget, PruneConfig
from mobile_video_jax.prune.plan import make_plan, planned_shapes, scoring_flops, sizes_of
from mobile_video_jax.prune.run import LOSSES, prune
from mobile_video_jax.prune.selection import Pruned
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.studies.chain import RIGHT, TEACHER, run_chain_study, teacher_run
from mobile_video_jax.studies.shrinking_config import PruningStudy
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics

NO_KD = KdWeights(0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way of pruning: changes of PruneConfig; and an order of recovering: changes of RecoverTraining, phase by phase.

    Phases take equal shares of the steps. By default flow matching and distillation are one loss from the first step.
    """

    prune: dict[str, Any] = dataclasses.field(default_factory=dict)
    phases: tuple[dict[str, Any], ...] = ({},)
    rate: float = 1.0  # factor of the recovery's learning rates
    shares: tuple[float, ...] = (1.0,)  # of what goes, gone before each phase


ARMS = {
    "tri-level": Arm(),
    "block": Arm({"levels": ("block",)}),
    "cross-level": Arm({"search": "cross_level"}),
    "random": Arm({"score": "random"}),
    "taylor": Arm({"heads": "taylor", "channels": "taylor"}),
    "magnitude": Arm({"score": "magnitude"}),
    "pairs": Arm({"search": "pairs"}),
    # Orders of recovering the tri-level model.
    "distil-only": Arm(phases=({"flow_weight": 0.0},)),
    "repair-first": Arm(phases=({"kd": NO_KD}, {"flow_weight": 0.0})),
    "data-only": Arm(phases=({"kd": NO_KD},)),
    # Half of what goes goes first, the rest after half of the recovery.
    "iterative": Arm(phases=({}, {}), shares=(0.5, 1.0)),
    "half-rate": Arm(rate=0.5),
    "double-rate": Arm(rate=2.0),
}


class Cell(NamedTuple):
    """A cell of the study: an arm, to the parameters of a share of the blocks, of the teacher of a seed."""

    arm: str
    seed: int
    kept: float = 1.0
    repeat: int = 0

    @property
    def name(self) -> str:
        if self.arm == TEACHER:
            return f"{TEACHER}-seed{self.seed}"
        return f"{self.arm}-keep{100 * self.kept:.0f}-{self.repeat}-seed{self.seed}"


def cells(study: PruningStudy) -> dict[str, Cell]:
    """The cells by name: the teachers, then budget by budget the first repeat of all arms, the second, ..."""
    grid = [Cell(TEACHER, seed) for seed in study.seeds]
    most = max(study.draws, study.repeats)
    for seed, kept, repeat, arm in itertools.product(study.seeds, study.blocks_kept, range(most), study.arms):
        if repeat < _count(study, arm):
            grid.append(Cell(arm, seed, kept, repeat))
    return {cell.name: cell for cell in grid}


def _count(study: PruningStudy, arm: str) -> int:
    if arm == "random":
        return study.draws
    return study.repeats if arm in study.repeated else 1


def run_pruning_study(study: PruningStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, kept: float, repeat: int, folder: Path) -> dict[str, Any]:
        if arm == TEACHER:
            return _teacher(study, seed, out)
        return {"kept": kept, "repeat": repeat} | _run_cell(study, Cell(arm, seed, kept, repeat), out, folder)

    return run_chain_study(study, cells(study), out, run, worker=worker, workers=workers)


def plan_pruning(study: PruningStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training and of scoring, counted without running anything.

    The teacher is counted with all its steps. Arms of one repeat share losses of masked models: each is counted whole.
    Pruning in rounds is counted as one.
    """
    teacher = Denoiser(study.dit)
    costs: dict[tuple[str, float], dict[str, float]] = {}
    rows = []
    for name, cell in cells(study).items():
        if cell.arm == TEACHER:
            rows.append({"name": name, "train_flops": DitStage(study.dit).cost().flops * study.dit.steps})
            continue
        if (cell.arm, cell.kept) not in costs:
            costs[cell.arm, cell.kept] = _planned(study, cell, teacher)
        rows.append({"name": name, **costs[cell.arm, cell.kept]})
    return rows


def _planned(study: PruningStudy, cell: Cell, teacher: Denoiser) -> dict[str, float]:
    config = cell_config(study, cell, teacher)
    plan = make_plan(config, teacher)
    sizes = tuple(shape.widths for shape in planned_shapes(plan))
    student = dataclasses.replace(study.dit.transformer, blocks=sizes, scan=False)
    recover = dataclasses.replace(study.recover, model=student, teacher_model=study.dit.model, block_map=())
    phases = [RecoverStage(dataclasses.replace(recover, **changes)).cost().flops for changes in ARMS[cell.arm].phases]
    return {
        "score_flops": scoring_flops(config, plan) if config.score == "kd" else 0.0,
        "train_flops": sum(phases) / len(phases) * recovery_steps(study, study.dit.steps),
    }


def cell_config(
    study: PruningStudy, cell: Cell, teacher: Denoiser, *, gone: float = 1.0, model: Denoiser | None = None
) -> PruneConfig:
    """The arm's way to the parameters of a teacher with a share of its blocks, or to `gone` of what goes on that way.

    `model`, in place of the teacher, is what earlier pruning left of it.
    """
    cost = make_plan(study.prune, teacher).space.costs["parameters"]
    shapes = teacher.config.transformer.block_shapes
    whole, least = cost.of(shapes), cost.of(shapes[: max(1, round(cell.kept * len(shapes)))])
    share = (whole - gone * (whole - least)) / cost.of((model or teacher).config.transformer.block_shapes)
    budget = Budget(parameters=share * (1 + 1e-9))
    return dataclasses.replace(study.prune, seed=cell.repeat, budget=budget, **ARMS[cell.arm].prune)


def recovery_steps(study: PruningStudy, teacher_steps: int) -> int:
    """The share of the teacher's steps, a multiple of measurements and of the phases of any arm."""
    unit = 2 * study.points
    return max(unit, round(study.recovery * teacher_steps / unit) * unit)


def _teacher(study: PruningStudy, seed: int, out: Path) -> dict[str, Any]:
    run = Run.open(teacher_run(out, seed))
    right = read_json(run.path / RIGHT)
    return {
        "steps": run.step,
        "right": right.get(str(run.step)),
        "parameters": run.denoiser.describe()["parameters"],
        "curve": [_held_out(run.path)[-1]],
    }


def _run_cell(study: PruningStudy, cell: Cell, out: Path, folder: Path) -> dict[str, Any]:
    """Prunes and recovers; `curve` has the held-out loss by steps of recovery."""
    teacher, arm = Run.open(teacher_run(out, cell.seed)), ARMS[cell.arm]
    pruned = _prune(study, cell, teacher, out, folder / "pruned")
    curve = [{"step": 0, "loss": pruned.held_out["after"]}]
    run, steps = folder / "pruned", recovery_steps(study, teacher.step or 0)
    for i, changes in enumerate(arm.phases):
        config = _recovery(study, cell, steps, out)
        if 0 < i < len(arm.shares):
            gone = cell_config(study, cell, teacher.denoiser, gone=arm.shares[i], model=Run.open(run).denoiser)
            pruned = prune(gone, run, config.data, folder / f"pruned{i}")
            run, config = folder / f"pruned{i}", dataclasses.replace(config, teacher=str(teacher.path))
        stage = RecoverStage.build(dataclasses.replace(config, init_from=str(run), **changes))
        run, done = folder / f"recovered{i}", curve[-1]["step"]
        train(stage, run)
        curve += [{"step": done + point["step"], "loss": point["loss"]} for point in _held_out(run)]
    student = Run.open(run).denoiser
    return {
        "steps": steps,
        "teacher_steps": teacher.step,
        "kd_loss": pruned.losses[pruned.chosen],
        "parameters": student.describe()["parameters"],
        "sizes": sizes_of(student.config.transformer.block_shapes),
        "curve": curve,
        "accuracy": _accuracy(study, run) if study.recovered_samples else None,
    }


def _prune(study: PruningStudy, cell: Cell, teacher: Run, out: Path, folder: Path) -> Pruned:
    """Prunes with the losses of masked models that other arms of the same repeat have measured."""
    config = cell_config(study, cell, teacher.denoiser, gone=ARMS[cell.arm].shares[0])
    if config.score != "kd":
        return prune(config, teacher.path, str(out / "latents"), folder)
    losses = out / "losses" / f"seed{cell.seed}-{cell.repeat}.jsonl"
    if losses.exists() and not folder.exists():
        folder.mkdir(parents=True)
        shutil.copy(losses, folder / LOSSES)
    pruned = prune(config, teacher.path, str(out / "latents"), folder)
    with replacing(losses) as temporary:
        shutil.copy(folder / LOSSES, temporary)
    return pruned


def _recovery(study: PruningStudy, cell: Cell, steps: int, out: Path) -> RecoverTraining:
    """A phase of recovery. All random draws learn from the same batches and noise, those of the first repeat."""
    arm, optimizer = ARMS[cell.arm], study.recover.optimizer
    length = steps // len(arm.phases)
    return dataclasses.replace(
        study.recover,
        optimizer=dataclasses.replace(
            optimizer,
            learning_rate=arm.rate * optimizer.learning_rate,
            adam_learning_rate=arm.rate * optimizer.adam_learning_rate,
        ),
        data=str(out / "latents"),
        seed=0 if cell.arm == "random" else cell.repeat,
        steps=length,
        eval_every=steps // study.points,
        checkpoint_every=length,
    )


def _held_out(run: Path) -> list[dict[str, Any]]:
    """The held-out losses of a run by step."""
    return [{"step": line["step"], "loss": line["eval_loss"]} for line in read_metrics(run) if "eval_loss" in line]


def _accuracy(study: PruningStudy, run: Path) -> dict[str, float]:
    samples = generate_samples(run, study.world, study.recovered_samples, study.sampling)
    return {name: score.value for name, score in accuracies(study.world, samples.pairs).items()}
