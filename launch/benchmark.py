"""Speed and memory beside a peer's: python -m launch.benchmark --suite=cpu|gpu [--only=NAME ...] [--json]

Every row holds the seconds of ours and of its peer, measured in turn, and ratio = peer_seconds / ours_seconds: above 1
ours is faster. Rows of vae_decode are beside LTX-Video's decoder in PyTorch, the others beside another way to run ours.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax
from absl import flags

from configs import vae
from export.peers import LtxDecoder
from launch import cli
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages import benchmark
from mobile_video_jax.stages.vae import VaeTraining
from mobile_video_jax.train.progress import say
from mobile_video_jax.vae.family import family_member

NAMES = ("vae_decode", "vae_memory", "vae_tiles", "vae_losses")
COMPRESSION = "t8_s32_c128"
FRAMES = (17, 49, 193)
SHOWN_ABOVE = ("name", "ours_seconds", "peer_seconds", "ratio", "peer", "hardware", "commit")

SUITE = flags.DEFINE_enum("suite", "cpu", ["cpu", "gpu"], "Where to run: float32 on the CPU, bfloat16 on a GPU.")
ONLY = flags.DEFINE_multi_enum("only", None, NAMES, "A benchmark to run; may be repeated. All without it.")
CLIP = flags.DEFINE_string("clip", "17x256x256", "The clip that vae_decode decodes.")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each side.", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def benchmarks(suite: str, clip: ClipShape, repeats: int) -> dict[str, Callable[[], Iterable[benchmark.Row]]]:
    """The benchmarks by name."""
    dtype, device = {"cpu": ("float32", "cpu"), "gpu": ("bfloat16", "cuda")}[suite]
    models = {size: replace(family_member(size, COMPRESSION), dtype=dtype) for size in ("mobile", "full")}
    clips = [ClipShape(frames, 256, 256) for frames in FRAMES]
    training = from_mapping(VaeTraining, vae.get_config("tiny_t4_s8_c16").to_dict())
    return {
        "vae_decode": lambda: benchmark.vae_decode(models, LtxDecoder(dtype, device), clip, repeats),
        "vae_memory": lambda: benchmark.vae_memory(models["mobile"], clips, repeats),
        "vae_tiles": lambda: benchmark.vae_tiles(models["mobile"], 512, 256, 64, repeats),
        "vae_losses": lambda: benchmark.vae_losses(training, benchmark.LOSS_TERMS, repeats),
    }


def table(rows: list[benchmark.Row]) -> str:
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
    suite, rows = benchmarks(SUITE.value, ClipShape.parse(CLIP.value), REPEATS.value), []
    for name in [name for name in NAMES if name in (ONLY.value or NAMES)]:
        say(f"{name}: started")
        for row in suite[name]():
            say(f"{row['name']}: ratio {row['ratio']:.2f}")
            rows.append(row)
    print(json.dumps(rows) if JSON.value else table(rows) + "\n" + json.dumps(rows))


def _use(suite: str) -> None:
    """Settles where JAX computes, before it starts. Raises UserError without a GPU where one is asked for."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer and the child processes need memory too
    if suite == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # of child processes
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        raise UserError("JAX finds no GPU here: use --suite=cpu, or pip install -e '.[gpu]'")


if __name__ == "__main__":
    cli.run(main)
