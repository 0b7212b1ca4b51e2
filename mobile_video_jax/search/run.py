"""A search on a trained run: learn what layouts share, evaluate layouts, choose one, write it as a run."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import yaml

from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.core.progress import EVERY, Progress
from mobile_video_jax.core.revision import digest
from mobile_video_jax.data.location import data_folder
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.latents.store import read_manifest
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import check_batch, make_mesh
from mobile_video_jax.prune.memo import LossFile
from mobile_video_jax.search.blocks import BlockSearch
from mobile_video_jax.search.candidates import CHOSEN, METHODS, Searched
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.cost_file import read_costs, write_costs
from mobile_video_jax.search.costs import CostTable, Limits, check_limits
from mobile_video_jax.search.dynamic import check_feasible
from mobile_video_jax.search.evolution import random_sizes
from mobile_video_jax.search.losses import LayoutLosses
from mobile_video_jax.search.network import NetworkSearch, Params
from mobile_video_jax.search.random_layouts import Sampler
from mobile_video_jax.search.space import Layout, Space
from mobile_video_jax.search.steps import Steps
from mobile_video_jax.search.temporal import TemporalSearch
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.lineage import PRUNED
from mobile_video_jax.train.checkpoint import newest_step, save_model
from mobile_video_jax.train.run import write_run
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.vae.latent_stats import LatentStats

# The search of a network, by the class of its config.
SEARCHES: dict[type, Callable[[Denoiser], NetworkSearch]] = {DitConfig: BlockSearch, UnetConfig: TemporalSearch}
SEARCH, COSTS, LOSSES, LAYOUT = "search.json", "costs.json", "losses.jsonl", "layout.yaml"


def search(
    config: SearchConfig, run: Run, data: str, out: Path, limits: Limits, method: str, costs: Path | None = None
) -> tuple[Searched, CostTable]:
    """Searches the layout of a run's network and writes the chosen one, with shared weights, as a run to `out`.

    Called again, it resumes with the weights and losses that are in `out`. Raises UserError for a budget below the
    cheapest layout, a network that has a layout or unequal blocks, latents of another VAE, a cost table of another
    network and a folder of another search.
    """
    _check_clips(config, run, data or run.config["data"])
    stage = _stage(config, run, data)
    network = network_search(config, stage.denoiser)
    space = network.space(config)
    table = cost_table(network, space, costs)
    check_limits(limits)
    check_feasible(space, table, limits)
    inputs = {"run": run.name, "step": run.step, "limits": dict(limits), "method": method, "config": plain(config)}
    claim(out, SEARCH, inputs | claimed_table(table), "search")
    write_costs(table, out / COSTS)
    mesh = make_mesh(stage.config.mesh)
    check_batch(config.batch_clips, mesh)
    sampler, steps = Sampler(space, table, limits), Steps(network, stage, mesh, config.seed)
    params = network.shared(config, sampler, steps, run.sharded_params(mesh), out)
    losses = LayoutLosses(
        config=config,
        steps=steps,
        params=params,
        memo=LossFile(out / LOSSES, _fingerprint(config, stage, run)),
        progress=_EvaluationProgress(_evaluations(config, space, method)),
    )
    searched = METHODS[method](sampler, losses, config)
    write_layout(run, network, searched.candidates[CHOSEN].layout, params, config, out)
    return searched, table


def network_search(config: SearchConfig, denoiser: Denoiser) -> NetworkSearch:
    """The search of a denoiser's layout, for clips of the config's shape."""
    clips = dataclasses.replace(denoiser.config, clip=config.clip or denoiser.config.clip)
    return SEARCHES[type(clips.model)](Denoiser(clips, denoiser.sampling))


def cost_table(network: NetworkSearch, space: Space, file: Path | None = None) -> CostTable:
    """The table of a file, else the phone's estimate. Raises UserError for a table that lacks choices of the space."""
    table = read_costs(file, network.digest) if file else network.table(space)
    table.check(space)
    return table


def write_layout(
    run: Run, network: NetworkSearch, layout: Layout, params: Params, config: SearchConfig, out: Path
) -> None:
    """Writes the network of a layout as a run, which descends from `run`, and the layout as a file for --values."""
    training = DitStage.of_run(run).config
    if newest_step(out) is None:
        save_model(out, run.step or 0, network.params(layout, params, jax.random.key(config.seed)))
    run.vae_run().copy(out / VAE)
    if block_map := network.block_map(layout):
        write_json(out / PRUNED, {"teacher": run.name, "teacher_step": run.step, "block_map": block_map})
    write_layout_file(network, layout, out)
    student = dataclasses.replace(training, clip=network.denoiser.config.clip, model=network.model(layout))
    sampling = dataclasses.asdict(run.denoiser.sampling) | {"reuse": ()}  # a table is for the blocks as they were
    write_run(out, "dit", plain(student), Denoiser(student).describe(), sampling)


def write_layout_file(network: NetworkSearch, layout: Layout, out: Path) -> None:
    """Writes the layout as a file for --values."""
    with replacing(out / LAYOUT) as temporary:
        temporary.write_text(yaml.safe_dump({"model": network.values(layout)}))


def _check_clips(config: SearchConfig, run: Run, data: str) -> None:
    """Raises UserError for data without clips of the shape that is searched for, with shapes that would do."""
    network = network_search(config, run.denoiser)
    held = sorted({clip for folder in data.split(",") for clip in read_manifest(data_folder(folder))["clips"]})
    clip = network.denoiser.config.clip
    if clip in held:
        return
    fitting = [each for each in held if _is_searched(config, run, each)]
    instead = f", or set --config.clip={' or '.join(fitting)}" if fitting else ""
    raise UserError(f"{data} holds clips of {' and '.join(held)}, not {clip}: name encoded ones by --data{instead}")


def _is_searched(config: SearchConfig, run: Run, clip: str) -> bool:
    try:
        network_search(dataclasses.replace(config, clip=clip), run.denoiser)
    except UserError:
        return False
    return True


def _stage(config: SearchConfig, run: Run, data: str) -> DitStage:
    """The run's stage with this search's batches. Raises UserError for latents of another VAE."""
    trained = DitStage.of_run(run)
    stage = DitStage(
        dataclasses.replace(
            trained.config,
            data=data or trained.config.data,
            clip=config.clip or trained.config.clip,
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
