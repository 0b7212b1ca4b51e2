"""A study: a grid of VAEs, each trained, evaluated and used for a small transformer of fixed size and budget."""

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import filling, read_json
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.evaluate.evaluation import FEATURES, SCORES, plain_scores
from mobile_video_jax.evaluate.generation import GenerationTask, evaluate_generation
from mobile_video_jax.evaluate.linear_floor import linear_floor
from mobile_video_jax.evaluate.posterior_bits import posterior_bits
from mobile_video_jax.evaluate.vae import Lpips, VaeTask, evaluate_vae
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.metrics.interval import FEW
from mobile_video_jax.metrics.reconstruction import PSNR
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.distributed import is_first, wait_for_all
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.studies.budget import dit_config, network, training_flops, vae_phases
from mobile_video_jax.studies.cell_costs import cell_costs
from mobile_video_jax.studies.cells import open_study, run_cells, share
from mobile_video_jax.studies.compression_data import check_enough, held_out_clips, judged_clip, make_data, study_data
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.learning import Learning, psnr_curve
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.vae.config import ADVERSARIAL, CONSISTENT, CONSISTENT_MSE, EQUIVARIANT, TURNED

# Folders of a cell with the evaluations of its VAE and of its transformer's samples.
RECONSTRUCTION, GENERATION = "reconstruction", "generation"
OBJECTIVES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "plain": ({}, {}),
    "consistency": (CONSISTENT, CONSISTENT),
    "consistency_mse": (CONSISTENT_MSE, CONSISTENT_MSE),
    "equivariance": ({}, EQUIVARIANT),
    "eq": ({}, TURNED),
    "adversarial": ({}, ADVERSARIAL),
    "both": (CONSISTENT, CONSISTENT | EQUIVARIANT),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    compression: str
    objective: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the cell's folder."""
        return f"{self.compression}-{self.objective}-seed{self.seed}"


def cells(study: StudyConfig) -> dict[str, Cell]:
    """The grid's cells by name. Raises UserError for an unknown objective and a compression that does not fit."""
    if study.finetune_steps >= study.vae.steps:
        raise UserError(
            f"finetune_steps {study.finetune_steps} leave none of {study.vae.steps} steps before: lower them"
        )
    for objective in () if study.finetune_steps else study.objectives:
        first, second = OBJECTIVES[objective]
        if first != second:
            raise UserError(f"objective '{objective}' changes the loss of a second phase: set finetune_steps")
    if not study.data and study.test_clips < FEW:
        raise UserError(f"test_clips {study.test_clips} are fewer than the {FEW} that a verdict needs: raise them")
    for compression in study.compressions:
        network(study, compression)
        for clip in (study.vae.clip, judged_clip(study)):
            ClipShape.parse(clip).check(Compression.parse(compression))
    grid = [Cell(*point) for point in itertools.product(study.compressions, study.objectives, study.seeds)]
    return {cell.name: cell for cell in grid}


def run_study(
    study: StudyConfig, out: Path, *, worker: int = 0, workers: int = 1, only: str = ""
) -> list[dict[str, Any]]:
    """Runs the cells that are not finished and that no other worker runs, or `only` one; returns all results.

    Worker 0 also makes the data set, of synthetic clips or of a folder of videos. A cell is a folder of `out`/cells,
    and every stage in it resumes. Raises UserError for an unknown cell, and data that are missing or too few for a
    verdict.
    """
    grid, data = cells(study), study_data(study, out)
    if only and only not in grid:
        raise UserError(f"the study has no cell '{only}': --plan lists them")
    if data.exists():  # checked now, not by every cell
        check_enough(data)
    if study.lpips:
        Lpips.parse(study.lpips)
    open_study(study, out, worker=worker, workers=workers)
    if is_first():
        share(lambda: make_data(study, data), data.exists, worker=worker)
    wait_for_all("the data are there")
    run = lambda name, folder: run_cell(study, grid[name], data, folder)
    return run_cells(list(grid), out, run, worker=worker, workers=workers, only=only)


def run_cell(study: StudyConfig, cell: Cell, data: Path, out: Path) -> dict[str, Any]:
    """Trains and evaluates one cell, and counts its costs. Processes of a job train together, and the first writes."""
    started = time.monotonic()
    phases = _train_vae(study, cell, data, out)
    wait_for_all("the VAE's runs are written")
    trained = time.monotonic()
    return {
        **dataclasses.asdict(cell),
        "name": cell.name,
        "network": _network(study, cell),
        "ratio": Compression.parse(cell.compression).ratio,
        **cell_costs(study, cell.compression),
        **_reconstruct(study, cell, data, phases, out / RECONSTRUCTION),
        "diffusability": _diffuse(study, cell, data, phases[-1], out),
        "seconds": {"vae": trained - started, "all": time.monotonic() - started},
        "commit": git_revision(),
        "hardware": hardware(),
    }


def plan(study: StudyConfig) -> list[dict[str, Any]]:
    """Cost of every cell: training FLOPs of its VAE and of its transformer, counted without running anything."""
    return [
        {
            "name": cell.name,
            **training_flops(study, cell.compression),
        }
        for cell in cells(study).values()
    ]


def _train_vae(study: StudyConfig, cell: Cell, data: Path, out: Path) -> list[Path]:
    """Trains the cell's VAE; returns the runs of its one or two phases."""
    runs: list[Path] = []
    changes = OBJECTIVES[cell.objective]
    for name, phase, terms in zip(("vae", "vae_finetuned"), vae_phases(study, cell.compression), changes, strict=False):
        init_from = str(runs[-1]) if runs else ""
        config = dataclasses.replace(with_terms(phase, terms), seed=cell.seed, data=str(data), init_from=init_from)
        train(VaeStage(config), out / name)
        runs.append(out / name)
    return runs


def with_terms(phase: VaeTraining, terms: Mapping[str, float]) -> VaeTraining:
    """The phase with an objective's terms; a discriminator learns for a tenth of its steps before its term counts."""
    loss = dataclasses.replace(phase.loss, **terms)
    if not loss.adversarial:
        return dataclasses.replace(phase, loss=loss)
    optimizer = dataclasses.replace(phase.optimizer, generator_alone=0)
    return dataclasses.replace(phase, loss=loss, optimizer=optimizer, discriminator_lead=phase.steps // 10)


def _reconstruct(study: StudyConfig, cell: Cell, data: Path, phases: list[Path], out: Path) -> dict[str, Any]:
    """Evaluates the VAE on test clips, beside the linear code of the same latents."""
    run, clip = Run.open(phases[-1]), judged_clip(study)
    shared = out.parents[2] / FEATURES  # cells have the same real clips
    task = VaeTask(run, data, out, clip, count=study.test_clips, fvd=None, lpips=study.lpips, features=shared)
    with _written_by_first(out) as folder:
        report = evaluate_vae(dataclasses.replace(task, out=folder))
        by_clip = read_json(folder / SCORES)["scores"][PSNR.key]
    clips = held_out_clips(data, ClipShape.parse(clip), study.test_clips)
    compression = Compression.parse(cell.compression).of_vae
    floor = linear_floor(data, compression, ClipShape.parse(study.vae.clip), clips)
    psnr = report["metrics"][PSNR.key]["value"]
    learning = Learning(psnr_curve(phases), psnr, floor[PSNR].value if floor else None)
    return {
        **{key: report[key] for key in ("metrics", "spectrum", "high_frequency", "lattice")},
        "psnr_by_clip": by_clip,
        "bits": posterior_bits(run.vae(), clips),
        "linear": plain_scores(floor) if floor else {},
        "learning": {**dataclasses.asdict(learning), "untrained": learning.verdict},
    }


@contextlib.contextmanager
def _written_by_first(out: Path) -> Iterator[Path]:
    """Gives a local folder that becomes `out`; in the other processes of a job, which do the same work, it is lost."""
    if is_first():
        with filling(out) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


def _diffuse(study: StudyConfig, cell: Cell, data: Path, vae: Path, out: Path) -> dict[str, Any]:
    """Trains the study's transformer on the VAE's latents and evaluates its samples for held-out captions."""
    latents = out / "latents"
    options = EncodeOptions(study.dit.text_encoder, (study.vae.clip,), shard_records=4096)
    manifest = encode_dataset(vae, data, latents, options)
    text = {key: manifest[key] for key in ("text_encoder", "text_width")}
    config = dataclasses.replace(dit_config(study, cell.compression), seed=cell.seed, data=str(latents), **text)
    train(DitStage(config), out / "dit")
    held_out = [line["eval_loss"] for line in read_metrics(out / "dit") if "eval_loss" in line]
    samples = evaluate_generation(
        GenerationTask(
            run=Run.open(out / "dit"),
            data=data,
            out=out / GENERATION,
            sampling=dataclasses.asdict(study.sampling),
            count=study.samples,
            text_encoder=study.dit.text_encoder,
            features=out.parents[1] / FEATURES,
        )
    )
    return {"eval_loss": held_out[-1], "samples": samples["metrics"], "real": samples["beside"]["real_clips"]}


def _network(study: StudyConfig, cell: Cell) -> str:
    """The free sizes of the cell's VAE, and the steps of its training."""
    config = network(study, cell.compression)
    widths, depths = ("-".join(map(str, sizes)) for sizes in (config.decoder_widths, config.decoder_depths))
    steps = sum(phase.steps for phase in vae_phases(study, cell.compression))
    return f"patch {config.patch}, widths {widths}, depths {depths}, {steps} steps"
