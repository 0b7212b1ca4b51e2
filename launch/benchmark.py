"""Measures speed and memory beside a peer's: python -m launch.benchmark --suite=cpu|gpu|tpu [--only=NAME ...] [--json]

Every row holds the seconds of ours and of its peer, measured in turn, and ratio = peer_seconds / ours_seconds: above 1
ours is faster. Rows of vae_decode are beside LTX-Video's decoder in PyTorch, dit_train and dit_sample beside the same
transformer in PyTorch, the others beside another way to run ours. mfu is a step's FLOP/s over those of a large matrix
product timed between its runs. --suite=tpu times 20 steps of the server transformer on random batches, with the mesh,
rematerialisation and batch that suit the slice, beside the estimate of the same program that launch.compile gives.
"""

import json
import os
from typing import TYPE_CHECKING, Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.ranges import Count, Size

if TYPE_CHECKING:
    from mobile_video_jax.bench.timing import Row

NAMES = ("vae_decode", "vae_memory", "vae_tiles", "vae_losses", "dit_train", "dit_sample", "lazy_sample")
SHOWN_ABOVE = ("name", "ours_seconds", "peer_seconds", "ratio", "peer", "hardware", "commit")

SUITE = flags.DEFINE_enum(
    "suite", "cpu", ["cpu", "gpu", "tpu"], "Where to run; the VAE in float32 on the CPU, all else in bfloat16."
)
ONLY = flags.DEFINE_multi_enum("only", None, NAMES, "A benchmark to run; may be repeated. All without it.")
CLIP = cli.define_clip("clip", "17x256x256", "The clip that vae_decode decodes.")
BATCH: flags.FlagHolder[int | None] = cli.define_number(
    "batch", None, Size, "Clips in a batch of dit_train, dit_sample and lazy_sample."
)
REPEATS = cli.define_number("repeats", 5, Count, "Timed runs of each side.")
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def table(rows: "list[Row]") -> str:
    """The rows as text."""
    lines = [f"{rows[0]['hardware']}, commit {rows[0]['commit']}"]
    lines += [f"{'name':32}{'ours':>10}{'peer':>10}{'ratio':>8}  peer"]
    for row in rows:
        seconds = "".join(f"{row[side]:>9.3f}s" for side in ("ours_seconds", "peer_seconds"))
        lines.append(f"{row['name']:32}{seconds}{row['ratio']:>8.2f}  {row['peer']}")
        lines.append("    " + "  ".join(f"{key} {_text(row[key])}" for key in row if key not in SHOWN_ABOVE))
    return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    _use(SUITE.value)
    from launch.suites import benchmarks

    suite, rows = benchmarks(SUITE.value, ClipShape.parse(CLIP.value), BATCH.value, REPEATS.value), []
    for name in [name for name in suite if name in (ONLY.value or NAMES)]:
        say(f"{name}: started")
        for row in suite[name]():
            say(f"{row['name']}: ratio {row['ratio']:.2f}")
            rows.append(row)
    print(json.dumps(rows) if JSON.value else table(rows) + "\n" + json.dumps(rows))


def _use(suite: str) -> None:
    """Chooses JAX's platform before it starts. Raises UserError where the suite's device is not there."""
    import jax

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer and the child processes need memory too
    if suite == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # of child processes
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != suite:
        raise UserError(f"JAX finds no {suite.upper()} here: use --suite=cpu, or pip install -e '.[{suite}]'")


if __name__ == "__main__":
    cli.run(main)
