"""Makes a Kubernetes job: python -m launch.tpu.job --config=configs/STAGE.py:VARIANT --topology=v5p:4x4x8 --image=IMAGE

Checks that mesh and batch suit the topology and prints the manifest of a JobSet (or writes it to --out) in which every
host runs `launch.train` with this config, --workdir and every --config.key=value of this command. Printed, it ends with
the summary as a YAML comment, `# {JSON}`. `kubectl apply -f` starts it. A preempted or failed job starts again and
resumes from its newest checkpoint. The cluster needs the JobSet controller and TPU node pools of this shape, as
`xpk cluster create` makes them.

With --study=NAME in place of --config it makes a JobSet for each cell of a study of VAEs, or for those of --cell, whose
hosts run `launch.ablate --cell` with --workdir as the study's folder; `launch.ablate --table --out=gs://BUCKET/PATH`
collects them.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml
from absl import flags

from launch.tpu.jobset import ACCELERATORS, SHARED, Job, jobset
from mobile_video_jax import cli
from mobile_video_jax.core.config import Config, from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.core.ranges import CountOrZero, Size
from mobile_video_jax.cost.tpu.topology import Topology
from mobile_video_jax.stages.config import training_class
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.study_class import study_class
from mobile_video_jax.train.config import TrainConfig

STUDY = flags.DEFINE_string("study", "", "A study of VAEs, a variant of configs/ablate.py, in place of --config.")
CELL = flags.DEFINE_multi_string("cell", [], "With --study: a cell to make a job for; repeatable. All without it.")


def _kind(values: Mapping[str, Any]) -> type[Config]:
    """The class of a config. Raises UserError, before it is asked for its keys, for a study that jobs cannot run."""
    if "kind" not in values:
        return training_class(values)
    if (kind := study_class(values)) is not StudyConfig:
        raise UserError("cells of this study share networks: run it on one host, --workers share it there")
    return kind


CONFIG = cli.define_config(
    _kind,
    "The stage's config.",
    default=lambda: f"ablate:{STUDY.value}" if STUDY.value else None,
)
WORKDIR = flags.DEFINE_string("workdir", None, "The run directory, gs://BUCKET/PATH.", required=True)
TOPOLOGY = flags.DEFINE_string("topology", None, "GENERATION:SHAPE of one slice, such as v5p:4x4x8.", required=True)
SLICES = cli.define_number("slices", 1, Size, "Slices of this shape.")
IMAGE = flags.DEFINE_string("image", None, "The container image, made from launch/tpu/Dockerfile.", required=True)
NAME = flags.DEFINE_string("name", "train", "The job's name.")
BUCKET = flags.DEFINE_string("bucket", "", "A storage bucket that every pod reads as /shared, and caches programs in.")
SERVICE_ACCOUNT = flags.DEFINE_string("service_account", "default", "The Kubernetes account that may use the bucket.")
QUEUE = flags.DEFINE_string("queue", "", "The Kueue queue; none if empty.")
RESTARTS = cli.define_number("restarts", 100, CountOrZero, "How often the job may start again.")
EXECUTABLE = flags.DEFINE_string("executable", "", "The step that launch.compile --store wrote, as the pods see it.")
OUT = cli.define_path("out", "The manifest's file; printed without it.", local=True)

NAMES = r"[a-z]([-a-z0-9]{0,25}[a-z0-9])?"
IMAGES = r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?"


def main() -> None:
    if not re.fullmatch(NAMES, NAME.value):
        raise UserError(f"--name={NAME.value}: use at most 27 small letters, digits and dashes, a letter first")
    if not re.fullmatch(IMAGES, IMAGE.value):
        raise UserError(f"--image={IMAGE.value}: use REGISTRY/NAME:TAG")
    _check_workdir()
    topology = Topology(TOPOLOGY.value, SLICES.value)
    processes = topology.hosts * topology.slices
    jobs = _jobs(topology)
    _check_batches(topology, processes)
    text = yaml.safe_dump_all(map(jobset, jobs), sort_keys=False)
    accelerator = ACCELERATORS[TOPOLOGY.value.partition(":")[0]]
    summary = {"out": str(OUT.value or ""), "processes": processes, "accelerator": accelerator, "jobs": len(jobs)}
    if OUT.value is None:
        print(f"{text}# {json.dumps(summary)}")  # YAML to its end, as kubectl reads it
        return
    with replacing(OUT.value) as temporary:
        temporary.write_text(text)
    cli.finish(OUT.value, summary)


def _check_workdir() -> None:
    """Raises UserError for a run on a pod's own disk, which no restart would find, or on the mount for reading."""
    if not re.match(r"gs://\w", WORKDIR.value):
        raise UserError(
            f"--workdir={WORKDIR.value} is lost with its pod, or mounted to read only: use gs://BUCKET/PATH"
        )


def _trainings(topology: Topology) -> list[TrainConfig]:
    """The trainings of a job, with what the topology chooses."""
    from mobile_video_jax.pods.automatic import automatic

    if isinstance(study := CONFIG.value, StudyConfig):
        return [study.vae, study.dit]
    return [from_mapping(type(CONFIG.value), automatic(CONFIG.values, topology, CONFIG.changed))]


def _check_batches(topology: Topology, processes: int) -> None:
    """Raises UserError where a training has no batch that divides over the data shards and processes."""
    for config in _trainings(topology):
        data, fsdp, _ = config.mesh.sizes(topology.chips * topology.slices)
        if config.batch_size % (data * fsdp) or config.batch_size % processes:
            raise UserError(
                f"batch_size {config.batch_size} does not divide over {data * fsdp} data shards and {processes} "
                f"processes: use a multiple of {max(data * fsdp, processes)}"
            )


def _jobs(topology: Topology) -> list[Job]:
    """The job, or that of each cell. Raises UserError for a study, or cells, that jobs cannot run."""
    executable = [f"--executable={EXECUTABLE.value}"] if EXECUTABLE.value else []
    if not isinstance(CONFIG.value, TrainConfig):
        commands = [["launch.ablate", f"--out={WORKDIR.value}", f"--cell={cell}"] for cell in _cells()]
    elif CELL.value:
        raise UserError("--cell is of a study: name that with --study")
    else:
        commands = [["launch.train", f"--workdir={WORKDIR.value}", *executable]]
    job = _job(topology)
    names = [f"{NAME.value}-{i}" for i in range(len(commands))] if len(commands) > 1 else [NAME.value]
    return [
        dataclasses.replace(job, name=name, command=["python", "-m", *command, *CONFIG.arguments, "--distributed"])
        for name, command in zip(names, commands, strict=True)
    ]


def _cells() -> list[str]:
    """The cells that jobs are made for."""
    from mobile_video_jax.studies.compression import cells

    study = CONFIG.value
    assert isinstance(study, StudyConfig)
    if EXECUTABLE.value:
        raise UserError("--executable is one training's: leave it out with --study")
    if not re.match(rf"gs://\w|{SHARED}/", study.data):
        raise UserError(
            f"the jobs of a study read data that are there: name them with --config.data=gs://BUCKET/PATH or {SHARED}/…"
        )
    grid = cells(study)
    if unknown := [cell for cell in CELL.value if cell not in grid]:
        raise UserError(f"the study has no cell '{unknown[0]}': launch.ablate --plan lists them")
    return CELL.value or list(grid)


def _job(topology: Topology) -> Job:
    from mobile_video_jax.cost.tpu.compiler_flags import as_arguments, compiler_options

    [config, *_] = _trainings(topology)
    return Job(
        name=NAME.value,
        image=IMAGE.value,
        command=[],
        topology=topology,
        bucket=BUCKET.value,
        service_account=SERVICE_ACCOUNT.value,
        queue=QUEUE.value,
        restarts=RESTARTS.value,
        compiler_flags=as_arguments(compiler_options(config.xla_flags, topology.generation)),
    )


if __name__ == "__main__":
    cli.run(main, config=CONFIG)
