"""The layouts that the study of attention compares, and the time that each takes on a phone."""

import dataclasses
from pathlib import Path

from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.search.candidates import CHOSEN
from mobile_video_jax.search.cost_file import write_costs
from mobile_video_jax.search.costs import Costs, CostTable, Limits
from mobile_video_jax.search.dynamic import check_feasible
from mobile_video_jax.search.network_costs import network_costs, phone_table
from mobile_video_jax.search.run import search
from mobile_video_jax.search.space import Choice, Layout, Space, uniform_space
from mobile_video_jax.search.untrained import without_layout
from mobile_video_jax.studies.chain import teacher_run
from mobile_video_jax.studies.network_config import AttentionStudy

FULL, SANDWICH, RANDOM = "full", "sandwich", "random"
# Kinds of the blocks in turn, all at the whole resolution.
KINDS = {
    FULL: ("full",),
    "linear": ("linear",),
    "lcha": ("lcha",),
    "lcha-softmax": ("lcha", "lcha", "lcha", "full"),
    "chunked": ("chunked",),
}
COSTS, SEARCHES, LAYOUTS = "costs.json", "searches", "layouts.json"


def repeated_layout(arm: str, depth: int) -> Layout:
    """The layout of an arm of KINDS."""
    return tuple(Choice(KINDS[arm][i % len(KINDS[arm])], 1) for i in range(depth))


def layout_of(study: AttentionStudy, arm: str, seed: int, out: Path) -> Layout:
    """The layout of an arm; those of the search are there once it has run."""
    if arm in KINDS:
        return repeated_layout(arm, study.dit.transformer.depth)
    places = read_json(_search(out, seed) / LAYOUTS)[arm]
    return tuple(Choice(kind, resolution) for kind, resolution in places)


def search_layouts(study: AttentionStudy, seed: int, out: Path) -> None:
    """Searches the sandwich of a seed's transformer, with random layouts of its time; both go into LAYOUTS."""
    folder = _search(out, seed)
    if (folder / LAYOUTS).exists():
        return
    table = phone_costs(study)
    write_costs(table, out / COSTS)
    config, run = dataclasses.replace(study.search, seed=seed), Run.open(teacher_run(out, seed))
    searched, _ = search(config, run, str(out / "latents"), folder, _limits(study, table), "dp", out / COSTS)
    layouts = {
        name.replace(" ", "-"): candidate.layout
        for name, candidate in searched.candidates.items()
        if name.startswith(RANDOM)
    }
    write_json(folder / LAYOUTS, {SANDWICH: searched.candidates[CHOSEN].layout} | layouts)


def check_budget(study: AttentionStudy) -> None:
    """Raises UserError where no layout is within the budget."""
    table = phone_costs(study)
    check_feasible(_space(study), table, _limits(study, table))


def _limits(study: AttentionStudy, table: CostTable) -> Limits:
    full = table.of(repeated_layout(FULL, study.dit.transformer.depth)).milliseconds
    return {"milliseconds": study.budget * full}


def _space(study: AttentionStudy) -> Space:
    return uniform_space(study.dit.transformer.depth, study.search.kinds, study.search.resolutions)


def _search(out: Path, seed: int) -> Path:
    return out / SEARCHES / f"seed{seed}"


def phone_costs(study: AttentionStudy) -> CostTable:
    """The cost table of the phone's transformer, whose choices stand for the blocks that one is stretched to."""
    table = phone_table(without_layout(Denoiser(study.phone)), _space(study))
    times = study.phone.transformer.depth / study.dit.transformer.depth
    choices = {choice: _times(costs, times) for choice, costs in table.choices.items()}
    return dataclasses.replace(table, choices=choices, network="")


def _times(costs: Costs, factor: float) -> Costs:
    scaled = {name: factor * getattr(costs, name) for name in ("milliseconds", "flops", "parameters")}
    return costs._replace(**scaled)


def phone_milliseconds(study: AttentionStudy, layout: Layout) -> float:
    """The estimated time of one call of the phone's transformer for a clip, in a layout stretched to its depth."""
    depth = study.phone.transformer.depth
    stretched = tuple(layout[i * len(layout) // depth] for i in range(depth))
    return network_costs(without_layout(Denoiser(study.phone)), stretched).milliseconds
