"""Draws clips: python -m launch.sample --model=RUN --prompt="two red circles moving left" --out=DIR

Writes one mp4 and one gif a prompt; --prompt may be given several times. Clip number i has seed + i.
"""

import re
from pathlib import Path

from absl import flags

from launch import cli
from mobile_video_jax.core.files import write_json
from mobile_video_jax.data.video_file import write_gif, write_mp4
from mobile_video_jax.stages.generate import Generator, SampleConfig
from mobile_video_jax.train.progress import Progress

MODEL = flags.DEFINE_string("model", None, "The transformer's run directory.", required=True)
VAE = flags.DEFINE_string("vae", None, "A VAE run whose decoder is used instead, such as a smaller one for phones.")
PROMPT = flags.DEFINE_multi_string("prompt", None, "What to show.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder for the clips.", required=True)
STEPS = flags.DEFINE_integer("steps", 40, "Solver steps.")
GUIDANCE = flags.DEFINE_float("guidance", 5.0, "Guidance scale; 1 is none and costs half.")
LOW = flags.DEFINE_float("guidance_low", 0.0, "The least time (0 is data) at which guidance acts.")
HIGH = flags.DEFINE_float("guidance_high", 1.0, "The greatest time (1 is noise) at which guidance acts.")
RESCALE = flags.DEFINE_float("guidance_rescale", 0.0, "0..1; above 0 takes back the contrast that guidance adds.")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to show; it takes the place of the empty caption.")
SHIFT = flags.DEFINE_float("shift", 1.0, "Time shift; above 1 spends more steps on noise.")
SOLVER = flags.DEFINE_string("solver", "euler", "euler; heun: second order, two passes a step; dpmpp_2m: one.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first clip's noise.")
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "", "Where the run's text encoder lies: clip:FOLDER or t5:FOLDER.")
CHUNK = flags.DEFINE_integer(
    "chunk", 0, "Latent frames decoded at a time, for long clips; 0 decodes all at once.", lower_bound=0
)
TILE = flags.DEFINE_integer(
    "tile", 0, "Pixels a side of a decoded tile, for large frames; 0 decodes whole frames.", lower_bound=0
)
OVERLAP = flags.DEFINE_integer("overlap", 0, "Pixels that neighbouring tiles share.", lower_bound=0)
FPS = flags.DEFINE_integer("fps", 8, "Frames a second of the files.")
SCALE = flags.DEFINE_integer("scale", 1, "Enlarges each pixel to SCALE x SCALE.")


def main() -> None:
    out = Path(OUT.value)
    config = SampleConfig(
        *(STEPS.value, GUIDANCE.value, SHIFT.value, SOLVER.value),
        *(CHUNK.value, TILE.value, OVERLAP.value),
        negative_prompt=NEGATIVE.value,
        guidance_low=LOW.value,
        guidance_high=HIGH.value,
        guidance_rescale=RESCALE.value,
    )
    progress = Progress("sample:", len(PROMPT.value))
    seeds = [SEED.value + i for i in range(len(PROMPT.value))]
    generator = Generator.load(Path(MODEL.value), Path(VAE.value) if VAE.value else None, TEXT_ENCODER.value)
    clips = generator.generate(PROMPT.value, seeds, config, progress=lambda done: progress.report(done))
    files = []
    for seed, prompt, frames in zip(seeds, PROMPT.value, clips, strict=True):
        name = f"{seed:05}-{re.sub('[^a-z0-9]+', '-', prompt.lower()).strip('-')[:60]}"
        write_mp4(out / f"{name}.mp4", frames, FPS.value, scale=SCALE.value)
        write_gif(out / f"{name}.gif", frames, FPS.value, scale=SCALE.value)
        files.append({"file": f"{name}.mp4", "prompt": prompt, "seed": seed})
    write_json(out / "samples.json", {"model": MODEL.value, "sampling": config.__dict__, "clips": files})
    cli.finish(out, {"out": str(out), "clips": [item["file"] for item in files]})


if __name__ == "__main__":
    cli.run(main)
