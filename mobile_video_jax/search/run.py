"""A search on a trained transformer's run: distil variants, evaluate layouts, choose one, write it as a run."""

import dataclasses
import time
from pathlib import Path

import jax
import yaml

from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.core.progress import EVERY, Progress, say
from mobile_video_jax.core.revision import digest
from mobile_video_jax.data.location import data_folder
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.latents.store import read_manifest
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.nn.attention.config import check_kind
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import check_batch, make_mesh
from mobile_video_jax.prune.memo import LossFile
from mobile_video_jax.search.candidates import CHOSEN, METHODS, Searched
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.cost_file import read_costs, write_costs
from mobile_video_jax.search.costs import CostTable, Limits, check_limits
from mobile_video_jax.search.dynamic import check_feasible
from mobile_video_jax.search.evolution import random_sizes
from mobile_video_jax.search.losses import LayoutLosses
from mobile_video_jax.search.network_costs import network_digest, phone_table
from mobile_video_jax.search.random_layouts import Sampler
from mobile_video_jax.search.space import Choice, Layout, Space, uniform_space
from mobile_video_jax.search.supernet import Params, layout_denoiser, layout_params
from mobile_video_jax.search.variants import supernet_params
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.lineage import PRUNED
from mobile_video_jax.train.checkpoint import newest_step, save_model
from mobile_video_jax.train.run import write_run
from mobile_video_jax.vae.latent_stats import LatentStats

SEARCH, COSTS, LOSSES, LAYOUT = "search.json", "costs.json", "losses.jsonl", "layout.yaml"


def search(
    config: SearchConfig, run: Run, data: str, out: Path, limits: Limits, method: str, costs: Path | None = None
) -> tuple[Searched, CostTable]:
    """Searches the layout of a run's transformer and writes the chosen one, with distilled variants, as a run to `out`.

    Called again, it resumes with the variants and losses that are in `out`. Raises UserError for a budget below the
    cheapest layout, a transformer that has a layout or unequal blocks, latents of another VAE, a cost table of another
    network and a folder of another search.
    """
    stage = _stage(config, run, data)
    space = search_space(config, stage.denoiser)
    table = cost_table(stage.denoiser, space, costs)
    check_limits(limits)
    check_feasible(space, table, limits)
    inputs = {"run": run.name, "step": run.step, "limits": dict(limits), "method": method, "config": plain(config)}
    claim(out, SEARCH, inputs | claimed_table(table), "search")
    write_costs(table, out / COSTS)
    mesh = make_mesh(stage.config.mesh)
    check_batch(config.batch_clips, mesh)
    params = supernet_params(config, space, stage, run.sharded_params(mesh), mesh, out)
    losses = LayoutLosses(
        config=config,
        stage=stage,
        params=params,
        mesh=mesh,
        memo=LossFile(out / LOSSES, _fingerprint(config, stage, run)),
        progress=_EvaluationProgress(_evaluations(config, space, method)),
    )
    searched = METHODS[method](Sampler(space, table, limits), losses, config)
    write_layout(run, stage.denoiser, searched.candidates[CHOSEN].layout, params, config, out)
    return searched, table


def search_space(config: SearchConfig, denoiser: Denoiser) -> Space:
    """The layouts of a transformer.

    Raises UserError for an unknown kind, and where the transformer has a layout already or blocks of unequal sizes.
    """
    for kind in config.kinds:
        check_kind(kind)
    model = denoiser.config.transformer
    if model.layout or model.blocks or model.skips:
        raise UserError("layouts are searched for a transformer of full attention whose blocks are equal: name another")
    return Space((_fitting(config, denoiser),) * model.depth)


def _fitting(config: SearchConfig, denoiser: Denoiser) -> tuple[Choice, ...]:
    """The choices that fit the clip's grid of tokens. Raises UserError where a kind or a resolution never does."""
    refused: dict[Choice, UserError] = {}
    choices = uniform_space(1, config.kinds, config.resolutions).choices
    for choice in choices:
        try:
            layout_denoiser(denoiser, (choice,))
        except UserError as error:
            refused[choice] = error
    fitting = tuple(choice for choice in choices if choice not in refused)
    for choice, reason in refused.items():
        if not all(any(value in other for other in fitting) for value in choice):
            raise reason
        say(f"search: {choice} is left out: {reason}")
    return fitting


def cost_table(denoiser: Denoiser, space: Space, file: Path | None = None) -> CostTable:
    """The table of a file, else the phone's estimate. Raises UserError for a table that lacks choices of the space."""
    table = read_costs(file, network_digest(denoiser)) if file else phone_table(denoiser, space)
    table.check(space)
    return table


def write_layout(run: Run, denoiser: Denoiser, layout: Layout, params: Params, config: SearchConfig, out: Path) -> None:
    """Writes the network of a layout as a run that descends from `run`, and the layout as a file for --values."""
    training = DitStage.of_run(run).config
    scanned = training.transformer.scan
    model = dataclasses.replace(
        layout_denoiser(denoiser, layout).config.transformer, scan=scanned, remat=training.transformer.remat
    )
    if newest_step(out) is None:
        weights = layout_params(denoiser, layout, params["rest"], params["variants"], jax.random.key(config.seed))
        save_model(out, run.step or 0, stack_blocks(weights, groups(model)) if scanned else weights)
    run.vae_run().copy(out / VAE)
    write_json(out / PRUNED, {"teacher": run.name, "teacher_step": run.step, "block_map": list(range(len(layout)))})
    write_layout_file(layout, out)
    student = dataclasses.replace(training, model=model)
    sampling = dataclasses.asdict(run.denoiser.sampling) | {"reuse": ()}  # a table is for the blocks as they were
    write_run(out, "dit", plain(student), Denoiser(student).describe(), sampling)


def write_layout_file(layout: Layout, out: Path) -> None:
    """Writes the layout as a file for --values."""
    places = [[kind, resolution] for kind, resolution in layout]
    with replacing(out / LAYOUT) as temporary:
        temporary.write_text(yaml.safe_dump({"model": {"depth": len(layout), "layout": places}}))


def _stage(config: SearchConfig, run: Run, data: str) -> DitStage:
    """The run's stage with this search's batches. Raises UserError for latents of another VAE."""
    trained = DitStage.of_run(run)
    stage = DitStage(
        dataclasses.replace(
            trained.config,
            data=data or trained.config.data,
            seed=config.seed,
            batch_size=config.batch_clips,
            token_budget=0,
            eval_batches=config.clips // config.batch_clips,
            mesh=MeshConfig(data=-1),
        )
    )
    folder = stage.data_folders[0]
    if LatentStats.load(folder / VAE) != LatentStats.load(run.path / VAE):
        raise UserError(f"{folder} holds latents of another VAE than {run} was trained on: encode them with its own")
    return stage


def claimed_table(table: CostTable) -> dict[str, str]:
    """What a search's folder remembers of its table."""
    parts = [*table.choices.items(), *table.moves.items()]
    return {"costs": digest([table.rest, *([*key, *costs] for key, costs in parts)])}


def _fingerprint(config: SearchConfig, stage: DitStage, run: Run) -> str:
    """A digest of all that losses of layouts depend on."""
    names = ("distill_steps", "distill_rate", "tune_rate", "clips", "times", "batch_clips", "seed")
    data = [read_manifest(data_folder(folder)) for folder in stage.config.data.split(",")]
    return digest([run.record, run.step, {name: getattr(config, name) for name in names}, data])


def _evaluations(config: SearchConfig, space: Space, method: str) -> int:
    """The most evaluations that a search has."""
    if method == "dp":
        return sum(map(len, space.positions)) + 3 + config.floor
    return (2 if method == "evolution" else 1) * sum(random_sizes(config.evolution)) + 3 + config.floor


class _EvaluationProgress:
    """A line of progress every few seconds while layouts are evaluated."""

    def __init__(self, total: int):
        self._progress, self._done, self._last = Progress("search:", total), 0, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > EVERY:
            self._progress.report(self._done, "layouts")
            self._last = time.monotonic()
        self._done += 1
