"""Whether a host's loader keeps up with the step: batches of a stage's own data, drawn for a few seconds here.

python -m launch.input --config=configs/dit.py:server --config.data=DIR --compiled=report.json
  reads hosts, batch and step time from what launch.compile --out left; --step_seconds=0.225 --hosts=32 name them
  otherwise. Run it on a host like those of the job, as it is this machine's cores that are timed.

Prints the batches, clips and bytes that this host makes of its share in a second, their ratio to what the step takes,
and the --config.loader_processes that a host needs. Set that and run it again to see whether the cores are there.
"""

import json
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.core.progress import say
from mobile_video_jax.cost.tpu.topology import Topology
from mobile_video_jax.pods.loader_rate import host_share, measure_loader, plan

CONFIG = config_flags.DEFINE_config_file("config", None, "The stage's config, FILE.py:VARIANT.")
COMPILED = flags.DEFINE_string("compiled", None, "The report of launch.compile --out.")
STEP_SECONDS = flags.DEFINE_float("step_seconds", None, "Seconds of a step, without --compiled.", lower_bound=1e-6)
HOSTS = flags.DEFINE_integer("hosts", 1, "Hosts that share the batch, without --compiled.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 10.0, "How long to draw batches.", lower_bound=0.1)


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # loading takes no accelerator
    values = CONFIG.value.to_dict()
    step_seconds, batch_size, share = _asked(values["batch_size"])
    say(f"drawing batches of {batch_size // share} clips for {SECONDS.value:g} s")
    measured = measure_loader(host_share(values, batch_size, share), SECONDS.value)
    found = plan(measured, step_seconds, values["loader_processes"])
    print(
        f"{measured['clips_per_second']:,.1f} clips, {measured['batches_per_second']:.2f} batches and "
        f"{measured['bytes_per_second'] / 1e6:,.1f} MB a second on this host; a step of {step_seconds:g} s on {share} "
        f"host(s) takes {1 / step_seconds:.2f} batches: {found['ratio']:.2f} times enough, "
        f"loader_processes={found['loader_processes']}"
    )
    print(json.dumps({"hosts": share, "batch_size": batch_size, **measured, **found}), flush=True)


def _asked(batch_size: int) -> tuple[float, int, int]:
    """Seconds of a step, the global batch and the hosts that share it. Raises UserError where they are not told."""
    if not COMPILED.value:
        if STEP_SECONDS.value is None:
            raise UserError("how long is a step? name --compiled=REPORT (of launch.compile --out) or --step_seconds")
        return STEP_SECONDS.value, batch_size, HOSTS.value
    report = read_json(Path(COMPILED.value))
    if report["step_seconds"] is None:
        raise UserError(f"the step of {COMPILED.value} does not fit its chips: compile one that does")
    topology = Topology(report["topology"], report["slices"])
    return report["step_seconds"], report["batch_size"], topology.hosts * topology.slices


if __name__ == "__main__":
    cli.run(main)
