"""The study of SnapGen-V's search: which layers over time an image network becomes a video network by.

All arms but `none` have the frozen image network of their seed and as many milliseconds on the phone at most; their
layers are fresh, so that a search's shared weights favour none.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.metrics.accuracy import ALL, attributes_right
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.search.candidates import CHOSEN
from mobile_video_jax.search.costs import CostTable
from mobile_video_jax.search.evolution import EvolutionConfig, random_sizes, rank_correlation
from mobile_video_jax.search.random_layouts import Sampler
from mobile_video_jax.search.run import network_search, search
from mobile_video_jax.search.space import Choice, Layout, Space
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.network_config import TemporalStudy
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.unet.config import NONE, UnetConfig

SEARCH, RANDOM = "search", "random"
FOUND = "found.json"  # of a seed's search: the layouts of all arms, and how the search went


def cells(study: TemporalStudy) -> Cells:
    """The cells by name: of each seed a video network of each arm."""
    return cells_of(study, (), study.arms)


def plan_temporal(study: TemporalStudy) -> list[dict[str, Any]]:
    """Cost of every training in FLOPs, counted without running anything; what is searched, as 3-D attention.

    A search counts as the steps of the layers that its candidates share and at most those that they have of their own.
    """
    costs = {}
    for arm in study.arms:
        kind = "attention3d" if arm in (SEARCH, RANDOM) else arm
        config = arm_config(study, [kind] * len(_unet(study).places))
        costs[arm] = DitStage(config).cost().flops * config.steps
    trained = {"vae": VaeStage(study.vae)} | {f"teacher-seed{seed}": DitStage(study.dit) for seed in study.seeds}
    shared = [{"name": name, "train_flops": each.cost().flops * each.config.steps} for name, each in trained.items()]
    layers = DitStage(arm_config(study, ["attention3d"] * len(_unet(study).places))).cost().flops
    steps = study.search.distill_steps + 2 * _candidate_steps(study.search.evolution)  # random search has as many
    searches = [{"name": f"searching-seed{seed}", "train_flops": layers * steps} for seed in study.seeds]
    arms = [{"name": name, "train_flops": costs[arm]} for name, (arm, _) in cells(study).items()]
    return [*shared, *searches, *arms]


def run_temporal_study(study: TemporalStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are.

    Worker 0 encodes the clips and searches, once for each seed.
    """

    def also(seed: int) -> None:
        options = EncodeOptions(study.dit.text_encoder, (study.video.clip,), shard_records=4096)
        encode_dataset(out / "vae", out / "data", out / "clips", options)
        find_layouts(study, out, seed)

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        found = read_json(searched(out, seed) / FOUND)
        config = arm_config(
            study,
            found["layouts"][arm],
            data=str(out / "clips"),
            init_from=str(teacher_run(out, seed)),
            seed=seed,
        )
        train(DitStage(config), folder / "run")
        searching = {key: found[key] for key in ("rank_correlation", "evaluations", "seconds")} if arm == SEARCH else {}
        costs = {"milliseconds": found["milliseconds"][arm], "layers": " ".join(found["layouts"][arm])}
        return costs | searching | _measured(study, folder / "run")

    return run_chain_study(study, cells(study), out, run, also=also, worker=worker, workers=workers)


def searched(out: Path, seed: int) -> Path:
    """The folder of a seed's search."""
    return out / "searches" / f"seed{seed}"


def arm_config(study: TemporalStudy, kinds: list[str], **changes: Any) -> DitTraining:
    """The training of these layers; without any, of the image network itself on the clips."""
    model = _unet(study).over_time(kinds)
    return dataclasses.replace(study.video, model=model, temporal_only=bool(model.temporal_layers), **changes)


def _candidate_steps(config: EvolutionConfig) -> int:
    """The most steps that evolution trains its candidates for."""
    more = np.diff((0, *config.fidelities))
    return int(sum(count * steps for count, steps in zip(random_sizes(config), more, strict=True)))


def find_layouts(study: TemporalStudy, out: Path, seed: int) -> None:
    """Searches on a seed's image network, unless that is done, and writes the layout of each arm."""
    folder, started = searched(out, seed), time.monotonic()
    if (folder / FOUND).exists():
        return
    config = dataclasses.replace(study.search, clip=study.video.clip, seed=seed)
    limits, run = {"milliseconds": budget(study)}, Run.open(teacher_run(out, seed))
    result, table = search(config, run, str(out / "clips"), folder, limits, "evolution")
    sampler = Sampler(network_search(config, run.denoiser).space(config), table, limits)
    layouts: dict[str, Layout] = {
        SEARCH: result.candidates[CHOSEN].layout,
        RANDOM: result.candidates["random search"].layout,
    }
    layouts |= {arm: hand_made(sampler, arm) for arm in study.arms if arm not in layouts}
    evolved = result.outcomes["evolution"]
    found = {
        "layouts": {arm: [choice.kind for choice in layout] for arm, layout in layouts.items()},
        "milliseconds": {arm: table.of(layout).milliseconds for arm, layout in layouts.items()},
        "rank_correlation": rank_correlation(evolved, config.evolution.fidelities),
        "evaluations": len(evolved.evaluations),
        "seconds": time.monotonic() - started,
    }
    write_json(folder / FOUND, found)


def budget(study: TemporalStudy) -> float:
    """Milliseconds of one call: a share of the way from the image network to 3-D attention everywhere."""
    space, table = space_and_table(study)
    least, most = (table.of(_uniform(space, kind)).milliseconds for kind in (NONE, "attention3d"))
    return least + study.budget * (most - least)


def space_and_table(study: TemporalStudy) -> tuple[Space, CostTable]:
    """The layouts that are searched, and what their parts cost."""
    network = network_search(study.search, Denoiser(dataclasses.replace(study.video, model=_unet(study))))
    space = network.space(study.search)
    return space, network.table(space)


def hand_made(sampler: Sampler, kind: str) -> Layout:
    """Layers of one kind at as many places as the limits allow, from the lowest resolution on."""
    layout = _uniform(sampler.space, NONE)
    for i in sorted(range(len(layout)), key=lambda i: -layout[i].resolution):
        more = (*layout[:i], Choice(kind, layout[i].resolution), *layout[i + 1 :])
        layout = more if sampler.feasible(more) else layout
    return layout


def _uniform(space: Space, kind: str) -> Layout:
    return tuple(Choice(kind, here[0].resolution) for here in space.positions)


def _unet(study: TemporalStudy) -> UnetConfig:
    model = study.dit.model
    assert isinstance(model, UnetConfig)
    return model


def _measured(study: TemporalStudy, run: Path) -> dict[str, Any]:
    samples = generate_samples(run, study.world, study.samples, study.sampling)
    hits = [int(attributes_right(study.world, *pair)[ALL]) for pair in samples.pairs]
    return {
        "parameters": Run.open(run).denoiser.describe()["parameters"],
        "loss": [line["eval_loss"] for line in read_metrics(run) if "eval_loss" in line][-1],
        "right": sum(hits) / len(hits),
        "hits": hits,
    }
