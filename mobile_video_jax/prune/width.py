"""One width of an elastic run as a run of its own."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mobile_video_jax.core.claim import check_claim, claim
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.elastic import whole_network
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.parallel.rules import parameter_shardings
from mobile_video_jax.stages.config import ElasticTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.elastic import ElasticStage
from mobile_video_jax.train.checkpoint import newest_step, save_model
from mobile_video_jax.train.run import NAME, write_run

MARKER = "slice.json"  # what the folder was made of


def slice_run(run: Run, width: float, out: Path) -> dict[str, Any]:
    """Writes the network of a width of an elastic run, 1 for the whole one; returns what is to be printed.

    Called again, it completes what is there. Raises UserError, before anything is written, for a run of another stage,
    a width that is not in the network, and a folder of other inputs.
    """
    stage = _elastic_stage(run)
    if width != 1 and width not in stage.members:
        known = ", ".join(f"{value:g}" for value in sorted({*stage.members, 1.0}))
        raise UserError(f"{run} has no width {width:g}: use one of {known}")
    inputs = {"run": run.name, "step": run.step, "width": width}
    check_claim(out, MARKER, inputs, "slice")
    claim(out, MARKER, inputs, "slice")
    if not (out / NAME).exists():
        _write_run(run, stage, width, out)
    description = Run.open(out).record["description"]
    return {"out": str(out), "run": run.name, "width": width, "parameters": description["parameters"]}


def _elastic_stage(run: Run) -> ElasticStage:
    """The stage that trained a run. Raises UserError for a run without widths."""
    if run.stage != ElasticTraining.stage:
        raise UserError(f"{run} is a run of stage '{run.stage}', which has one width: name one of configs/elastic.py")
    return ElasticStage(run.config_as(ElasticTraining, init_from=""), run.denoiser.sampling)


def _write_run(run: Run, stage: ElasticStage, width: float, out: Path) -> None:
    """Writes the files of a run, run.json last."""
    member = stage.members.get(width, stage.denoiser)
    training = dataclasses.replace(DitStage.of_run(run).config, model=member.config.model, init_from="")
    run.vae_run().copy(out / "vae")
    if newest_step(out) is None:
        save_model(out, run.step or 0, _params(run, stage, width, make_mesh(MeshConfig(), jax.local_devices()[:1])))
    facts = {"slice": {"source": run.name, "source_step": run.step, "width": width}}
    sampling = dataclasses.asdict(run.denoiser.sampling) | {"reuse": ()}  # a table is for the modules of one width
    write_run(out, "dit", plain(training), Denoiser(training).describe() | facts, sampling)


def _params(run: Run, stage: ElasticStage, width: float, mesh: Mesh) -> Any:
    shardings = parameter_shardings(stage.boxed_shapes, mesh)
    target = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stage.shapes, shardings
    )
    params = run.params(target)
    return whole_network(params) if width == 1 else stage.width_params(params, width)
