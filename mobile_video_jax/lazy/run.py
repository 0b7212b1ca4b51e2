"""A run whose sampling steps, or a stream's chunks, do without some modules, which the sensitivity or gates choose."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mobile_video_jax.core.claim import check_claim, claim
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.progress import phase
from mobile_video_jax.core.revision import digest
from mobile_video_jax.dit.step_table import MODULES, StepTable
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.lazy.choose import (
    REUSING_CHUNKS,
    Chosen,
    check_target,
    leave_out_by_rise,
    reuse_across_chunks,
    reuse_by_score,
)
from mobile_video_jax.lazy.chunks import PlainStream
from mobile_video_jax.lazy.costs import KINDS, ModuleCosts, module_costs, stream_costs
from mobile_video_jax.lazy.runs import best_table, longest_run, most_reused
from mobile_video_jax.lazy.sensitivity import loss_rises, losses_file
from mobile_video_jax.lazy.steps import PlainSampler
from mobile_video_jax.lazy.trajectories import Captions, gate_scores, step_states
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.prune.memo import LossFile
from mobile_video_jax.stages.config import LazyTraining
from mobile_video_jax.stages.lazy import LazyStage
from mobile_video_jax.train.checkpoint import newest_step, restore_model, save_model
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.run import NAME, write_run

MARKER = "lazy.json"  # what the folder was made with
GATES, SCORES, RUN_ERRORS = "gates", "scores.json", "runs.jsonl"
RUNS = ("init_from", "teacher")  # keys of a config that name runs


def make_lazy(config: LazyTraining, run: Run, target: float, out: Path, shared: Path | None = None) -> dict[str, Any]:
    """Writes the run with a table that saves `target` of the cost of sampling; returns what is to be printed.

    Gates are trained and runs of steps measured in the folder `shared`, which targets of one method may have in common,
    or inside `out`. Called again, it resumes the training or the scoring. Raises UserError, before anything is
    compiled, for a target out of reach, a sampler of another kind, and a folder of other inputs.
    """
    config = dataclasses.replace(config, init_from=run.name, data=config.data or run.config["data"])
    stage = LazyStage.build(config)
    method, sampler, chunks = _method(config, stage), stage.sampler, config.across == "chunks"
    # A guided run's steps have outputs to reuse, whatever chooses them.
    reuses = not chunks and (method == "gates" or sampler.guidance != 1)
    costs = _costs(stage, config.cost)
    check_target(target, costs, sampler.steps, first=not reuses, chunks=REUSING_CHUNKS if chunks else 1.0)
    inputs = {"run": run.name, "step": run.step, "target": target, "config": plain(config)}
    check_claim(out, MARKER, inputs, "lazy run")
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    captions = _captions(stage, mesh)  # raises for data that do not fit, before the folder is made
    claim(out, MARKER, inputs, "lazy run")
    if (out / NAME).exists():
        return _summary(out)
    folder = (shared or out / GATES) if method == "gates" else out
    if method == "gates":
        train(stage, folder)
    params = run.sharded_params(mesh)
    by_runs = reuses and method == "sensitivity"
    with phase("lazy: scoring on held-out captions"):
        if by_runs:
            plain_sampler = _plain_sampler(stage, params, captions)
            scores, chosen = _by_runs(plain_sampler, costs, target, shared or out, run)
        else:
            scores = SCORINGS[method](stage, params, captions, folder)
            choose = reuse_across_chunks if chunks else reuse_by_score if reuses else leave_out_by_rise
            chosen = choose(scores, costs, target)
    end = {"error" if by_runs else "threshold": chosen.threshold}
    write_json(out / SCORES, {"method": method, "scores": scores.tolist(), **end})
    facts = {"method": method, "source": run.name, "source_step": run.step, "data": config.data, "target": target}
    facts |= {**end, "across": config.across, **_shares(stage, chosen)}
    if chunks:
        with phase("lazy: comparing streams"):
            other_noise = config.seed + 1
            facts["stream_distance"] = _stream(stage, params, captions).distance(other_noise, chosen.table)
    if by_runs:
        other = dataclasses.replace(plain_sampler, seed=config.seed + 1)
        facts["clip_distance"] = other.distance(chosen.table)
    _write_run(run, dataclasses.replace(sampler, reuse=chosen.table), facts, params, out)
    return _summary(out)


def _summary(out: Path) -> dict[str, Any]:
    """What a finished folder holds."""
    record = Run.open(out).record
    return {"out": str(out), "table": record["sampling"]["reuse"], **record["description"]["lazy"]}


def _method(config: LazyTraining, stage: LazyStage) -> str:
    """The configured way of choosing.

    Raises UserError for one that does not fit, and for chunks of a run that sees whole clips.
    """
    if config.across == "chunks":
        if not stage.config.model.stream_chunk:
            raise UserError(
                f"{config.init_from} sees whole clips, which have no chunk before: leave out --config.across"
            )
        if config.method == "gates":
            raise UserError("gates are of steps: with --config.across=chunks use --config.method=sensitivity")
    return config.method


def _by_runs(
    sampler: PlainSampler, costs: ModuleCosts, target: float, folder: Path, run: Run
) -> tuple[Float[np.ndarray, "runs 3"], Chosen]:
    """Of each run of steps its first step, its length and its error; the table of the least error.

    What was measured stays in a file in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = len(sampler.captions["text"]), sampler.seed
    known = LossFile(folder / RUN_ERRORS, digest([run.name, run.step, plain(sampler.config), sizes]))
    steps = sampler.config.steps
    errors = sampler.run_errors(longest_run(steps, most_reused(costs, steps, target)), known)

    def error(table: StepTable) -> float:
        key = " ".join(table)
        if key not in known:
            known[key] = sampler.error(table)
        return float(known[key])

    chosen = best_table(errors, costs, target, steps, error)
    return np.array([[*each, value] for each, value in errors.items()]), Chosen(*chosen)


def _by_gates(stage: LazyStage, params: Any, captions: Captions, folder: Path) -> np.ndarray:
    target = {"gates": stage.ema_params(stage.shapes)["gates"]}
    gates = restore_model(folder, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), target))["gates"]
    network, seed = stage.denoiser.network, stage.config.seed
    return gate_scores(network, stage.sampler, params, gates["vectors"], captions, seed, stage.empty_caption)


def _by_sensitivity(stage: LazyStage, params: Any, captions: Captions, folder: Path) -> np.ndarray:
    network, seed = stage.denoiser.network, stage.config.seed
    if stage.config.across == "chunks":
        return _stream(stage, params, captions).changes(seed, stage.time_grid(stage.denoiser.tokens))
    states = step_states(network, stage.sampler, params, captions, seed, stage.empty_caption)
    times = np.asarray(stage.time_grid(stage.denoiser.tokens))[:-1]
    memo = losses_file(folder, digest([plain(stage.config), plain(stage.sampler)]))
    return loss_rises(network, params, states, times, captions, memo)


def _by_chance(stage: LazyStage, params: Any, captions: Captions, folder: Path) -> np.ndarray:
    depth = len(as_transformer(stage.config.model).block_shapes)
    halves = () if stage.sampler.guidance == 1 or stage.config.across == "chunks" else (2,)
    return np.random.default_rng(stage.config.seed).random((stage.sampler.steps, depth, len(MODULES), *halves))


SCORINGS = {"gates": _by_gates, "sensitivity": _by_sensitivity, "random": _by_chance}


def _captions(stage: LazyStage, mesh: Mesh) -> Captions:
    """Latents and captions of the first held-out clips. Raises UserError where the data hold none out."""
    config = dataclasses.replace(stage.config, batch_size=stage.config.score_clips, token_budget=0)
    for batch in LazyStage(config, stage.denoiser.sampling).eval_batches(mesh):
        return {key: jnp.asarray(batch[key]) for key in ("latents", "text", "text_mask")}
    raise UserError(f"{stage.config.data} holds no validation split to score on: name other data with --data")


def _stream(stage: LazyStage, params: Any, captions: Captions) -> PlainStream:
    sampler = dataclasses.replace(stage.sampler, reuse=())
    return PlainStream(stage.denoiser, sampler, params, captions, stage.empty_caption)


def _plain_sampler(stage: LazyStage, params: Any, captions: Captions) -> PlainSampler:
    sampler = dataclasses.replace(stage.sampler, reuse=())
    return PlainSampler(stage.denoiser, sampler, params, captions, stage.empty_caption, stage.config.seed)


def _costs(stage: LazyStage, kind: str) -> ModuleCosts:
    """The costs of a clip's modules, or of a stream's chunk."""
    if stage.config.across == "chunks":
        return stream_costs(stage.denoiser, kind, stage.sampler.steps)
    return module_costs(stage.denoiser, kind)


def _shares(stage: LazyStage, chosen: Chosen) -> dict[str, float]:
    """The shares of FLOPs and of the phone's estimated time that the table leaves."""
    guided, names = stage.sampler.guidance != 1, {"flops": "flops_share", "latency": "phone_time_share"}
    return {names[kind]: _costs(stage, kind).share(chosen.table, guided=guided) for kind in KINDS}


def _write_run(run: Run, sampler: SampleConfig, facts: dict[str, Any], params: Any, out: Path) -> None:
    """Writes the files of a run, run.json last."""
    run.vae_run().copy(out / "vae")
    if newest_step(out) is None:
        save_model(out, run.step or 0, params)
    config = run.config | {key: run.find(run.config[key]) for key in RUNS if run.config.get(key)}
    if "lora" in config:
        config["lora"] = config["lora"] | {"rank": 0}  # the adapter is merged
    changes = {"steps": sampler.steps, "times": sampler.times, "reuse": sampler.reuse}
    sampling = dataclasses.asdict(run.denoiser.sampling) | changes
    write_run(out, run.stage, config, Denoiser(run.denoiser.config).describe() | {"lazy": facts}, sampling)
