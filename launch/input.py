"""Measures whether a host's loader keeps up with the step, on a stage's own data.

python -m launch.input --config=configs/dit.py:server --config.data=DIR --compiled=report.json
  reads hosts, batch and step time from what launch.compile --out wrote; --step_seconds=0.225 --hosts=32 name them
  otherwise. Run it on a host like those of the job, as it is this machine's cores that are timed.

Prints the batches, clips and bytes that this host makes of its share in a second, their ratio to what the step takes,
and the --config.loader_processes that a host needs. Set that and run it again to see whether the cores are there.
"""

import json
from typing import Annotated

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.ranges import Positive, Range, Size
from mobile_video_jax.stages.config import training_class

CONFIG = cli.define_config(training_class, "The stage's config.")
COMPILED = cli.define_path("compiled", "The report of launch.compile --out.", local=True)
STEP_SECONDS: flags.FlagHolder[float | None] = cli.define_number(
    "step_seconds", None, Positive, "Seconds of a step, without --compiled."
)
HOSTS = cli.define_number("hosts", 1, Size, "Hosts that share the batch, without --compiled.")
SECONDS = cli.define_number("seconds", 10.0, Annotated[float, Range(0.1, 86_400)], "Seconds of loading.")


def main() -> None:
    import jax

    from mobile_video_jax.pods.loader_rate import host_share, measure_loader, plan

    jax.config.update("jax_platforms", "cpu")  # loading takes no accelerator
    values = CONFIG.values
    step_seconds, batch_size, hosts = _step(values["batch_size"])
    say(f"loading batches of {batch_size // hosts} clips for {SECONDS.value:g} s")
    measured = measure_loader(host_share(values, batch_size, hosts), SECONDS.value)
    planned = plan(measured, step_seconds, values["loader_processes"])
    print(
        f"{measured['clips_per_second']:,.1f} clips, {measured['batches_per_second']:.2f} batches and "
        f"{measured['bytes_per_second'] / 1e6:,.1f} MB a second on this host; a step of {step_seconds:g} s on {hosts} "
        f"host(s) takes {1 / step_seconds:.2f} batches: {planned['ratio']:.2f} times enough, "
        f"loader_processes={planned['loader_processes']}"
    )
    print(json.dumps({"hosts": hosts, "batch_size": batch_size, **measured, **planned}), flush=True)


def _step(batch_size: int) -> tuple[float, int, int]:
    """Seconds of a step, the global batch and the hosts that share it. Raises UserError where a step's are unknown."""
    if COMPILED.value is None:
        if STEP_SECONDS.value is None:
            raise UserError("how long is a step? name --compiled=REPORT (of launch.compile --out) or --step_seconds")
        return STEP_SECONDS.value, batch_size, HOSTS.value
    from mobile_video_jax.cost.tpu.topology import Topology

    advice = "name the report that launch.compile --out wrote"
    keys, missing = (
        ("step_seconds", "batch_size", "topology", "slices"),
        f"--compiled={COMPILED.value} does not exist: {advice}",
    )
    report = read_json(COMPILED.value, *keys, missing=missing, advice=advice)
    if report["step_seconds"] is None:
        raise UserError(f"the step of {COMPILED.value} does not fit its chips: compile one that does")
    topology = Topology(report["topology"], report["slices"])
    return report["step_seconds"], report["batch_size"], topology.hosts * topology.slices


if __name__ == "__main__":
    cli.run(main, config=CONFIG)
