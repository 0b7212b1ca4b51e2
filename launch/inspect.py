"""What a config costs: python -m launch.inspect --config=configs/dit.py:server [--json]

Parameters and FLOPs of one forward pass of one clip, by part; tokens, latent shape and bytes of the parameters.
Works from shapes alone: no memory is taken and no accelerator is touched.
"""

import json
from typing import Any

from absl import flags
from ml_collections import config_flags

from launch import cli
from mobile_video_jax.stages.registry import build_stage

CONFIG = config_flags.DEFINE_config_file("config", None, "The stage's config, FILE.py:VARIANT.")
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def table(costs: dict[str, Any]) -> str:
    """The costs as text."""
    lines = [f"clip {costs['clip']}, latents {costs['latent_shape']}, {costs['tokens']} tokens"]
    lines += [f"{'part':20}{'parameters':>16}{'FLOPs':>22}"]
    for part in [*sorted({*costs["parameters"], *costs["flops"]} - {"total"}), "total"]:
        lines.append(f"{part:20}{costs['parameters'].get(part, 0):>16,}{costs['flops'].get(part, 0):>22,}")
    lines.append(f"{costs['bytes']:,} bytes of float32 parameters")
    if per_frame := costs.get("decoder_flops_per_512_frame"):
        lines.append(f"decoding a 512x512 frame of a 49-frame clip: {per_frame / 1e9:.1f} GFLOP")
    return "\n".join(lines)


def main() -> None:
    costs = build_stage(CONFIG.value.to_dict()).inspect()
    print(json.dumps(costs) if JSON.value else table(costs) + "\n" + json.dumps(costs))


if __name__ == "__main__":
    cli.run(main)
