"""Judges a VAE run: python -m launch.evaluate --model=RUN --data=DIR --out=DIR [--json]

Codes held-out clips of a prepared data set and writes PSNR, SSIM, flicker, the latents' spectrum and the flat-colour
lattice, each with its 95 % interval where it has one, as report.json and report.html. Clips of any length and size:
--chunk codes so many latent frames at a time, --tile cuts frames into tiles of so many pixels.
"""

import json
from pathlib import Path

from absl import flags

from launch import cli
from mobile_video_jax.stages.evaluate import evaluate_vae

MODEL = flags.DEFINE_string("model", None, "The VAE's run directory.", required=True)
DATA = flags.DEFINE_string("data", None, "A prepared video data set.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder of the report.", required=True)
CLIP = flags.DEFINE_string("clip", "", "Frames x height x width of the clips; the VAE's training clip if empty.")
SPLIT = flags.DEFINE_string("split", "test", "validation or test.")
CLIPS = flags.DEFINE_integer("clips", 64, "How many clips at most.", lower_bound=1)
CHUNK = flags.DEFINE_integer("chunk", 0, "Latent frames coded at a time; 0 codes a clip in one pass.", lower_bound=0)
TILE = flags.DEFINE_integer("tile", 0, "Pixels a side of a tile; 0 codes whole frames.", lower_bound=0)
OVERLAP = flags.DEFINE_integer("overlap", 0, "Pixels that neighbouring tiles share.", lower_bound=0)
ROWS = flags.DEFINE_integer("rows", 1, "Devices that share each clip, cut by rows.", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def main() -> None:
    out = Path(OUT.value)
    numbers = evaluate_vae(
        Path(MODEL.value),
        Path(DATA.value),
        out,
        clip=CLIP.value,
        split=SPLIT.value,
        count=CLIPS.value,
        chunk=CHUNK.value,
        tile=TILE.value,
        overlap=OVERLAP.value,
        rows=ROWS.value,
    )
    if JSON.value:
        print(json.dumps(numbers))
        return
    for name, score in numbers["metrics"].items():
        print(f"{name:10}{score['value']:10.3f}   95 % {score['low']:.3f} to {score['high']:.3f}, {score['n']} clips")
    cli.finish(out / "report.html", numbers)


if __name__ == "__main__":
    cli.run(main)
