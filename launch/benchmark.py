"""Speed and memory beside a peer's: python -m launch.benchmark --suite=cpu|gpu [--only=NAME ...] [--json]

Every row holds the seconds of ours and of its peer, measured in turn, and ratio = peer_seconds / ours_seconds: above 1
ours is faster. Rows of vae_decode are beside LTX-Video's decoder in PyTorch, dit_train and dit_sample beside the same
transformer in PyTorch, the others beside another way to run ours. mfu is a step's FLOP/s over those of a large matrix
product timed between its runs.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax
from absl import flags

from configs import dit, vae
from export.peer.ltx_decoder import LtxDecoder, dit_peer
from mobile_video_jax import cli
from mobile_video_jax.bench import dit as benchmark_dit
from mobile_video_jax.bench import vae as benchmark_vae
from mobile_video_jax.bench.timing import Row
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.config import Dtype
from mobile_video_jax.stages.config import DitTraining, VaeTraining
from mobile_video_jax.vae.family import family_member

NAMES = ("vae_decode", "vae_memory", "vae_tiles", "vae_losses", "dit_train", "dit_sample")
COMPRESSION = "t8_s32_c128"
FRAMES = (17, 49, 193)
# A step of these takes about a second on two cores.
CPU_DIT = DitConfig(width=512, depth=8, heads=8, head_dim=64, ffn=2048, rope_theta=10_000.0, dtype="bfloat16")
CPU_CLIP = "49x192x256"
# Both sides' states, 40 GB each, and what they keep for the backward pass fit into 139 GB.
BATCH_SIZES = {"cpu": 2, "gpu": 4}
CEILING_SIDES = {"cpu": 2048, "gpu": 16_384}
SHOWN_ABOVE = ("name", "ours_seconds", "peer_seconds", "ratio", "peer", "hardware", "commit")

SUITE = flags.DEFINE_enum(
    "suite", "cpu", ["cpu", "gpu"], "Where to run; the VAE in float32 on the CPU, all else in bfloat16."
)
ONLY = flags.DEFINE_multi_enum("only", None, NAMES, "A benchmark to run; may be repeated. All without it.")
CLIP = flags.DEFINE_string("clip", "17x256x256", "The clip that vae_decode decodes.")
BATCH = flags.DEFINE_integer("batch", None, "Clips in a batch of dit_train and dit_sample.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each side.", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def benchmarks(suite: str, clip: ClipShape, batch: int | None, repeats: int) -> dict[str, Callable[[], Iterable[Row]]]:
    """The benchmarks by name."""
    dtypes: dict[str, Dtype] = {"cpu": "float32", "gpu": "bfloat16"}
    dtype, device = dtypes[suite], {"cpu": "cpu", "gpu": "cuda"}[suite]
    models = {size: replace(family_member(size, COMPRESSION), dtype=dtype) for size in ("mobile", "full")}
    clips = [ClipShape(frames, 256, 256) for frames in FRAMES]
    training = from_mapping(VaeTraining, vae.get_config("tiny_t4_s8_c16").to_dict())
    steps = benchmark_dit.Steps(dit_training(suite, batch or BATCH_SIZES[suite]), CEILING_SIDES[suite], repeats)
    return {
        "vae_decode": lambda: benchmark_vae.vae_decode(models, LtxDecoder(dtype, device), clip, repeats),
        "vae_memory": lambda: benchmark_vae.vae_memory(models["mobile"], clips, repeats),
        "vae_tiles": lambda: benchmark_vae.vae_tiles(models["mobile"], 512, 256, 64, repeats),
        "vae_losses": lambda: benchmark_vae.vae_losses(training, benchmark_vae.LOSS_TERMS, repeats),
        "dit_train": lambda: [benchmark_dit.dit_train(steps, torch_dit(steps.config, device))],
        "dit_sample": lambda: [benchmark_dit.dit_sample(steps, torch_dit(steps.config, device))],
    }


def dit_training(suite: str, batch_size: int) -> DitTraining:
    """On a GPU the server transformer at 1,344 tokens; on the CPU one of 36 M parameters at 336."""
    server = from_mapping(DitTraining, dit.get_config("server").to_dict())
    common = replace(server, batch_size=batch_size, image_probability=0.0)
    if suite == "cpu":
        return replace(common, clip=CPU_CLIP, model=CPU_DIT)
    return replace(common, model=replace(server.model, remat="dots"))


def torch_dit(config: DitTraining, device: str) -> benchmark_dit.PeerDit:
    """The config's transformer in PyTorch."""
    return dit_peer(config.model, Denoiser(config).latent_shape, config.text_width, device)


def table(rows: list[Row]) -> str:
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
    suite, rows = benchmarks(SUITE.value, ClipShape.parse(CLIP.value), BATCH.value, REPEATS.value), []
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
