"""A study: a grid of VAEs, each trained, evaluated and used for a small transformer of fixed size and budget."""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.data.dataset import open_split
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.evaluate.evaluation import plain_scores
from mobile_video_jax.evaluate.linear_floor import linear_floor
from mobile_video_jax.evaluate.reconstruction import reconstruct
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.metrics.accuracy import accuracies
from mobile_video_jax.metrics.reconstruction import PSNR
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.studies.budget import dit_config, network, training_flops, vae_phases
from mobile_video_jax.studies.cells import open_study, run_cells, share
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.learning import Learning, psnr_curve
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.vae.decoder_flops import decoder_flops_per_frame
from mobile_video_jax.vae.losses.terms import CONSISTENT, EQUIVARIANT

OBJECTIVES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "plain": ({}, {}),
    "consistency": (CONSISTENT, CONSISTENT),
    "equivariance": ({}, EQUIVARIANT),
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
    for compression in study.compressions:
        network(study, compression)
        ClipShape.parse(study.vae.clip).check(Compression.parse(compression))
    grid = [Cell(*point) for point in itertools.product(study.compressions, study.objectives, study.seeds)]
    return {cell.name: cell for cell in grid}


def run_study(study: StudyConfig, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are.

    Worker 0 also renders the clips. A cell is a folder of `out`/cells, and every stage in it resumes.
    """
    grid = cells(study)
    data = Path(study.data) if study.data else out / "data"
    if study.data:
        open_split(data, "train")  # told now, not by every cell
    open_study(study, out, worker=worker, workers=workers)
    share(lambda: _render_clips(study, data), data.exists, worker=worker)
    run = lambda name, folder: run_cell(study, grid[name], data, folder)
    return run_cells(list(grid), out, run, worker=worker, workers=workers)


def _render_clips(study: StudyConfig, data: Path) -> None:
    if not study.data:
        sizes = {"train": study.train_clips, "validation": study.validation_clips, "test": study.test_clips}
        prepare("moving_shapes", data, world=study.world, clip=ClipShape.parse(study.vae.clip), sizes=sizes)


def run_cell(study: StudyConfig, cell: Cell, data: Path, out: Path) -> dict[str, Any]:
    """Trains and evaluates one cell, and counts its costs."""
    started = time.monotonic()
    phases = _train_vae(study, cell, data, out)
    trained, run = time.monotonic(), phases[-1]
    clip, compression = ClipShape.parse(study.vae.clip), Compression.parse(cell.compression)
    reconstruction = reconstruct(Run.open(run).vae(), data, "test", clip, study.test_clips)
    floor = linear_floor(data, compression.of_vae, clip, reconstruction.clips)
    learning = Learning(psnr_curve(phases), reconstruction.scores[PSNR].value, floor[PSNR].value if floor else None)
    return {
        **dataclasses.asdict(cell),
        "name": cell.name,
        "network": _network(study, cell),
        "ratio": compression.ratio,
        **_costs(study, cell),
        **reconstruction.numbers(),
        "linear": plain_scores(floor) if floor else {},
        "learning": {**dataclasses.asdict(learning), "untrained": learning.verdict},
        "diffusability": _diffuse(study, cell, data, run, out),
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
        loss = dataclasses.replace(phase.loss, **terms)
        init_from = str(runs[-1]) if runs else ""
        config = dataclasses.replace(phase, loss=loss, seed=cell.seed, data=str(data), init_from=init_from)
        train(VaeStage(config), out / name)
        runs.append(out / name)
    return runs


def _diffuse(study: StudyConfig, cell: Cell, data: Path, vae: Path, out: Path) -> dict[str, Any]:
    """Trains the study's transformer on the VAE's latents and reads its samples back."""
    latents = out / "latents"
    options = EncodeOptions(study.dit.text_encoder, (study.vae.clip,), shard_records=4096)
    manifest = encode_dataset(vae, data, latents, options)
    text = {key: manifest[key] for key in ("text_encoder", "text_width")}
    config = dataclasses.replace(dit_config(study, cell.compression), seed=cell.seed, data=str(latents), **text)
    train(DitStage(config), out / "dit")
    held_out = [line["eval_loss"] for line in read_metrics(out / "dit") if "eval_loss" in line]
    result: dict[str, Any] = {"eval_loss": held_out[-1]}
    if not study.data:
        samples = generate_samples(out / "dit", study.world, study.samples, study.sampling, study.dit.text_encoder)
        scores = accuracies(study.world, samples.pairs)
        result["accuracy"] = {name: dataclasses.asdict(score) for name, score in scores.items()}
    return result


def _network(study: StudyConfig, cell: Cell) -> str:
    """The free sizes of the cell's VAE, and the steps of its training."""
    config = network(study, cell.compression)
    widths, depths = ("-".join(map(str, sizes)) for sizes in (config.decoder_widths, config.decoder_depths))
    steps = sum(phase.steps for phase in vae_phases(study, cell.compression))
    return f"patch {config.patch}, widths {widths}, depths {depths}, {steps} steps"


def _costs(study: StudyConfig, cell: Cell) -> dict[str, Any]:
    """Cost of the paper's clip at this compression: tokens, and FLOPs of one training step a clip."""
    clip = ClipShape.parse(study.server.clip)
    costs: dict[str, Any] = {
        "tokens": clip.tokens(Compression.parse(cell.compression)),
        **training_flops(study, cell.compression),
    }
    for name, reference in (("server", study.server), ("mobile", study.mobile)):
        config = dataclasses.replace(reference, compression=cell.compression, batch_size=1)
        costs[f"{name}_step_flops"] = DitStage(config).cost().flops
    costs["decoder_flops_per_frame"] = decoder_flops_per_frame(network(study, cell.compression), clip)
    return costs
