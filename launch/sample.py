"""Draws clips: python -m launch.sample --model=RUN --prompt="two red circles moving left" --out=DIR

Writes one mp4 and one gif a prompt; --prompt may be given several times. --prompts=FILE names a list instead: a .txt
with a prompt a line, or a .jsonl of lines {"prompt": "...", "seed": 3, "image": "a.png"}, the last two as wanted. Clip
number i has seed + i where the list names none. Local devices share every batch; a stopped job goes on where it was.
"""

from pathlib import Path

from absl import flags

from launch import sampling_flags
from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.generate.folder import GenerationJob, generate_folder
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import SEEDS, Request, make_requests, read_requests
from mobile_video_jax.parallel.distributed import one_writer

MODEL = flags.DEFINE_string("model", None, "The transformer's run directory.", required=True)
PROMPT = flags.DEFINE_multi_string("prompt", [], "What to show.")
PROMPTS = flags.DEFINE_string("prompts", "", "A list of prompts, FILE.txt or FILE.jsonl.")
IMAGE = flags.DEFINE_multi_string("image", [], "The clips' first frame: one for all, or one for each --prompt.")
CLIP = flags.DEFINE_string("clip", "", "Frames x height x width of the clips; the run's own if empty.")
OUT = flags.DEFINE_string("out", None, "The folder for the clips.", required=True)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first clip's noise.", 0, SEEDS - 1)
FPS = flags.DEFINE_float("fps", None, "Frames a second of the files; the run's own if not given, or 8.", lower_bound=1)
SCALE = flags.DEFINE_integer("scale", 1, "Enlarges each pixel to SCALE x SCALE.", lower_bound=1)

flags.adopt_module_key_flags(sampling_flags)


def main() -> None:
    out, requests = storage_path(OUT.value), _requests()
    generator = Generator.load(
        MODEL.value,
        sampling_flags.vae(),
        sampling_flags.TEXT_ENCODER.value,
        clip=CLIP.value,
        fsdp=sampling_flags.FSDP.value,
    )
    config = generator.sample_config(**sampling_flags.sampling())
    job = GenerationJob(requests, config, out, FPS.value or generator.frame_rate, SCALE.value)
    with one_writer(out):
        clips = generate_folder(generator, job, sampling_flags.BATCH_SIZE.value)
    cli.finish(out, {"out": str(out), "clips": clips})


def _requests() -> list[Request]:
    images = [Path(image) for image in IMAGE.value]
    if bool(PROMPT.value) == bool(PROMPTS.value):
        raise UserError("say what to draw with --prompt or with --prompts=FILE, one of the two")
    if PROMPTS.value:
        return read_requests(Path(PROMPTS.value), SEED.value, images)
    return make_requests(PROMPT.value, SEED.value, images)


if __name__ == "__main__":
    cli.run(main, distributed=True)
