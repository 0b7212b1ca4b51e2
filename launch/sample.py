"""Draws clips: python -m launch.sample --model=RUN --prompt="two red circles moving left" --out=DIR

Writes one mp4 and one gif a prompt; --prompt may be given several times. --prompts=FILE names a list instead: a .txt
with a prompt a line, or a .jsonl of lines {"prompt": "...", "seed": 3, "image": "a.png"}, the last two as wanted. Clip
number i has seed + i where the list names none. Local devices share every batch; a stopped job goes on where it was.
"""

from pathlib import Path

from absl import flags

from launch import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.generate import Generator
from mobile_video_jax.stages.prompts import SEEDS, Request, make_requests, read_requests
from mobile_video_jax.stages.sample_folder import Job, draw_folder
from mobile_video_jax.stages.sampling import SampleConfig

MODEL = flags.DEFINE_string("model", None, "The transformer's run directory.", required=True)
VAE = flags.DEFINE_string("vae", None, "A VAE run whose decoder is used instead, such as a smaller one for phones.")
PROMPT = flags.DEFINE_multi_string("prompt", [], "What to show.")
PROMPTS = flags.DEFINE_string("prompts", "", "A list of prompts, FILE.txt or FILE.jsonl.")
IMAGE = flags.DEFINE_multi_string("image", [], "The clips' first frame: one for all, or one for each --prompt.")
CLIP = flags.DEFINE_string("clip", "", "Frames x height x width of the clips; the run's own if empty.")
OUT = flags.DEFINE_string("out", None, "The folder for the clips.", required=True)
STEPS = flags.DEFINE_integer("steps", 40, "Solver steps.")
GUIDANCE = flags.DEFINE_float("guidance", 5.0, "Guidance scale; 1 is none and costs half.")
LOW = flags.DEFINE_float("guidance_low", 0.0, "The least time (0 is data) at which guidance acts.")
HIGH = flags.DEFINE_float("guidance_high", 1.0, "The greatest time (1 is noise) at which guidance acts.")
RESCALE = flags.DEFINE_float("guidance_rescale", 0.0, "0..1; above 0 takes back the contrast that guidance adds.")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to show; it takes the place of the empty caption.")
SHIFT = flags.DEFINE_float("shift", None, "Time shift; above 1 spends more steps on noise; as trained if not given.")
SOLVER = flags.DEFINE_string("solver", "euler", "euler; heun: second order, two passes a step; dpmpp_2m: one.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first clip's noise.", 0, SEEDS - 1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Clips drawn at once, rounded up to whole devices.", lower_bound=1)
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the transformer's weights.", lower_bound=1)
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "", "Where the run's text encoder lies: clip:FOLDER or t5:FOLDER.")
CHUNK = flags.DEFINE_integer(
    "chunk", 0, "Latent frames decoded at a time, for long clips; 0 decodes all at once.", lower_bound=0
)
TILE = flags.DEFINE_integer(
    "tile", 0, "Pixels a side of a decoded tile, for large frames; 0 decodes whole frames.", lower_bound=0
)
OVERLAP = flags.DEFINE_integer("overlap", 0, "Pixels that neighbouring tiles share.", lower_bound=0)
FPS = flags.DEFINE_integer("fps", 8, "Frames a second of the files.", lower_bound=1)
SCALE = flags.DEFINE_integer("scale", 1, "Enlarges each pixel to SCALE x SCALE.", lower_bound=1)


def main() -> None:
    run, out, requests = Path(MODEL.value), Path(OUT.value), _requests()
    vae = Path(VAE.value) if VAE.value else None
    generator = Generator.load(run, vae, TEXT_ENCODER.value, clip=CLIP.value, fsdp=FSDP.value)
    config = SampleConfig(
        *(STEPS.value, GUIDANCE.value, generator.time_shift if SHIFT.value is None else SHIFT.value, SOLVER.value),
        *(CHUNK.value, TILE.value, OVERLAP.value),
        negative_prompt=NEGATIVE.value,
        guidance_low=LOW.value,
        guidance_high=HIGH.value,
        guidance_rescale=RESCALE.value,
    )
    job = Job(run, vae or run / "vae", requests, config, out, FPS.value, SCALE.value)
    cli.finish(out, {"out": str(out), "clips": draw_folder(generator, job, BATCH_SIZE.value)})


def _requests() -> list[Request]:
    images = [Path(image) for image in IMAGE.value]
    if bool(PROMPT.value) == bool(PROMPTS.value):
        raise UserError("say what to draw with --prompt or with --prompts=FILE, one of the two")
    if PROMPTS.value:
        return read_requests(Path(PROMPTS.value), SEED.value, images)
    return make_requests(PROMPT.value, SEED.value, images)


if __name__ == "__main__":
    cli.run(main, distributed=True)
