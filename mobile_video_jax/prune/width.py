"""One width of an elastic run as a run of its own."""

import dataclasses
from collections.abc import Iterator, Sequence
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
    stage = elastic_stage(run, (width,))
    inputs = {"run": run.name, "step": run.step, "width": width}
    check_claim(out, MARKER, inputs, "slice")
    claim(out, MARKER, inputs, "slice")
    if not (out / NAME).exists():
        _write_run(run, stage, width, out)
    description = Run.open(out).record["description"]
    return {"out": str(out), "run": run.name, "width": width, "parameters": description["parameters"]}


def networks_of_widths(run: Run, widths: Sequence[float], mesh: Mesh) -> Iterator[tuple[Run, Any]]:
    """Each of the widths as a run in memory, which knows the network of that width, with its parameters on a mesh."""
    stage = elastic_stage(run, widths)
    params = _all_params(run, stage, mesh)
    for width in widths:
        config = run.config | {"model": plain(stage.networks[width].config.model)}
        yield dataclasses.replace(run, record={**run.record, "config": config}), _of_width(stage, params, width)


def elastic_stage(run: Run, widths: Sequence[float]) -> ElasticStage:
    """The stage that trained a run. Raises UserError for a run without widths, and for one that it has not."""
    if run.stage != ElasticTraining.stage:
        raise UserError(f"{run} is a run of stage '{run.stage}', which has one width: name one of configs/elastic.py")
    stage = ElasticStage(run.config_as(ElasticTraining, init_from=""), run.denoiser.sampling)
    for width in widths:
        if width not in stage.networks:
            known = ", ".join(f"{value:g}" for value in sorted(stage.networks))
            raise UserError(f"{run} has no width {width:g}: use one of {known}")
    return stage


def _write_run(run: Run, stage: ElasticStage, width: float, out: Path) -> None:
    """Writes the files of a run, run.json last."""
    member = stage.networks[width]
    training = dataclasses.replace(DitStage.of_run(run).config, model=member.config.model, init_from="")
    run.vae_run().copy(out / "vae")
    if newest_step(out) is None:
        mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
        save_model(out, run.step or 0, _of_width(stage, _all_params(run, stage, mesh), width))
    facts = {"slice": {"source": run.name, "source_step": run.step, "width": width}}
    sampling = dataclasses.asdict(run.denoiser.sampling) | {"reuse": ()}  # a table is for the modules of one width
    write_run(out, "dit", plain(training), Denoiser(training).describe() | facts, sampling)


def _all_params(run: Run, stage: ElasticStage, mesh: Mesh) -> Any:
    shardings = parameter_shardings(stage.boxed_shapes, mesh)
    target = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stage.shapes, shardings
    )
    return run.params(target)


def _of_width(stage: ElasticStage, params: Any, width: float) -> Any:
    return whole_network(params) if width == 1 else stage.width_params(params, width)
