"""Makes a Kubernetes job: python -m launch.tpu.job --config=configs/STAGE.py:VARIANT --topology=v5p:4x4x8 --image=IMAGE

Checks that mesh and batch suit the topology and prints the manifest of a JobSet (or writes it to --out) in which every
host runs `launch.train` with this config, --workdir and every --config.key=value given here. `kubectl apply -f` starts
it. A preempted or failed job starts again and goes on from its newest checkpoint. The cluster needs the JobSet
controller and TPU node pools of this shape, as `xpk cluster create` makes them.
"""

import re
import sys
from pathlib import Path

import yaml
from absl import flags
from ml_collections import config_flags

from launch.tpu.jobset import ACCELERATORS, Job, jobset
from mobile_video_jax import cli
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.cost.tpu.topology import Topology
from mobile_video_jax.parallel.config import MeshConfig

CONFIG = config_flags.DEFINE_config_file("config", None, "The stage's config, FILE.py:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run directory as the pods see it.", required=True)
TOPOLOGY = flags.DEFINE_string("topology", None, "GENERATION:SHAPE of one slice, such as v5p:4x4x8.", required=True)
SLICES = flags.DEFINE_integer("slices", 1, "How many slices.", lower_bound=1)
IMAGE = flags.DEFINE_string("image", None, "The container image, made from launch/tpu/Dockerfile.", required=True)
NAME = flags.DEFINE_string("name", "train", "The job's name.")
BUCKET = flags.DEFINE_string("bucket", "", "A storage bucket that every pod sees as /shared, and caches programs in.")
SERVICE_ACCOUNT = flags.DEFINE_string("service_account", "default", "The Kubernetes account that may use the bucket.")
QUEUE = flags.DEFINE_string("queue", "", "The Kueue queue; none if empty.")
RESTARTS = flags.DEFINE_integer("restarts", 100, "How often the job may start again.", lower_bound=0)
EXECUTABLE = flags.DEFINE_string("executable", "", "The step that launch.compile --store left, as the pods see it.")
OUT = flags.DEFINE_string("out", "", "The manifest's file; printed if empty.")


def main() -> None:
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,25}[a-z0-9])?", NAME.value):
        raise UserError(f"--name={NAME.value}: use at most 27 small letters, digits and dashes, a letter first")
    topology = Topology(TOPOLOGY.value, SLICES.value)
    config = CONFIG.value.to_dict()
    sizes = from_mapping(MeshConfig, config["mesh"]).sizes(topology.chips * topology.slices)
    processes = topology.hosts * topology.slices
    shards = sizes[0] * sizes[1]
    if config["batch_size"] % shards or config["batch_size"] % processes:
        raise UserError(
            f"batch_size {config['batch_size']} does not divide over {shards} data shards and {processes} processes: "
            f"use a multiple of {max(shards, processes)}"
        )
    given = [argument for argument in sys.argv[1:] if argument.startswith(("--config", "--executable"))]
    command = ["python", "-m", "launch.train", f"--workdir={WORKDIR.value}", *given, "--distributed"]
    job = Job(
        *(NAME.value, IMAGE.value, command, topology, BUCKET.value, SERVICE_ACCOUNT.value, QUEUE.value, RESTARTS.value)
    )
    text = yaml.safe_dump(jobset(job), sort_keys=False)
    if not OUT.value:
        print(text, end="")
        return
    with replacing(Path(OUT.value)) as temporary:
        temporary.write_text(text)
    accelerator = ACCELERATORS[TOPOLOGY.value.partition(":")[0]]
    cli.finish(Path(OUT.value), {"out": OUT.value, "processes": processes, "accelerator": accelerator})


if __name__ == "__main__":
    cli.run(main)
