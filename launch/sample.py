"""Generates clips: python -m launch.sample --model=RUN --prompt="two red circles moving left" --out=DIR

Writes one mp4 and one gif a prompt; --prompt may be given several times. --prompts=FILE names a list instead: a .txt
with a prompt a line, or a .jsonl of lines {"prompt": "...", "seed": 3, "image": "a.png"}, the last two as wanted. Clip
number i has seed + i where the list names none. Local devices share every batch; a stopped job resumes where it was.
--stream --seconds=20 generates clips of any length chunk by chunk, as an mp4 that grows, with a run that is causal.
"""

from typing import TYPE_CHECKING, Annotated

from absl import flags

from launch import sampling_flags
from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import PlaybackRate, Range, Seconds, Seed, Weight

if TYPE_CHECKING:
    from mobile_video_jax.generate.generator import Generator
    from mobile_video_jax.generate.prompts import Request

MODEL = cli.require_path("model", "The transformer's run directory.", exists=True)
PROMPT = flags.DEFINE_multi_string("prompt", [], "What to show.")
PROMPTS = cli.define_path("prompts", "A list of prompts, FILE.txt or FILE.jsonl.", local=True)
IMAGE = cli.define_paths("image", "The clips' first frame: one for all, or one for each --prompt.", local=True)
CLIP = cli.define_clip("clip", "", "Frames x height x width of the clips; the run's own if empty.")
OUT = cli.require_path("out", "The folder for the clips.")
SEED = cli.define_number("seed", 0, Seed, "Seed of the first clip's noise.")
FPS: flags.FlagHolder[float | None] = cli.define_number(
    "fps", None, PlaybackRate, "Frames a second of the clips; the run's own if not given, or 8."
)
GUIDE = flags.DEFINE_enum(
    "guide",
    None,
    ("count", "count_attention", "count_best"),
    "Guides to the number of objects that a prompt names: by the critic's gradient, by cross-attention "
    "(CountDiffusion), or by the best of two clips.",
)
CRITIC = cli.define_path("critic", "With --guide: the run of a critic (configs/critic.py), which counts.", exists=True)
GUIDE_STRENGTH: flags.FlagHolder[float | None] = cli.define_number(
    "guide_strength", None, Weight, "Strength of count and count_attention; the guide's own if not given."
)
SCALE = cli.define_number("scale", 1, Annotated[int, Range(1, 32)], "Enlarges each pixel to SCALE x SCALE.")
STREAM = flags.DEFINE_bool("stream", False, "Generate chunk by chunk and write frames while later ones are made.")
SECONDS: flags.FlagHolder[float | None] = cli.define_number(
    "seconds", None, Seconds, "With --stream: how long the clips are; as long as the run's own if not given."
)

flags.adopt_module_key_flags(sampling_flags)


def main() -> None:
    requests = _requests()
    if SECONDS.value and not STREAM.value:
        raise UserError("--seconds is the length of a stream: add --stream, or choose a length with --clip")
    from mobile_video_jax.generate.folder import GenerationJob, generate_folder
    from mobile_video_jax.generate.generator import Generator
    from mobile_video_jax.generate.stream import ClipStream
    from mobile_video_jax.generate.stream_folder import stream_folder
    from mobile_video_jax.models.run import Run
    from mobile_video_jax.parallel.distributed import one_writer

    out, run = OUT.value, Run.open(MODEL.value, **sampling_flags.CHECKPOINT.value)
    images = any(request.image for request in requests)
    changes = sampling_flags.sampling(images=images)
    if images:
        run.sampled.check_starts_from_images()  # before the weights are read
    generator = Generator.load(
        run,
        sampling_flags.vae(),
        sampling_flags.TEXT_ENCODER.value,
        clip=CLIP.value,
        fsdp=sampling_flags.FSDP.value,
        fps=FPS.value,
    )
    if GUIDE.value and STREAM.value:
        raise UserError("a guide sees a whole clip, which --stream has none of: leave one of the two out")
    if GUIDE.value:
        generator = _guided(generator, GUIDE.value)
    config = generator.sample_config(**changes)
    job = GenerationJob(requests, config, out, generator.frame_rate, SCALE.value)
    with one_writer(out):
        if STREAM.value:
            stream = ClipStream(generator, config)
            seconds = SECONDS.value or generator.clip.frames / generator.frame_rate
            clips = stream_folder(stream, job, seconds, sampling_flags.BATCH_SIZE.value)
        else:
            clips = generate_folder(generator, job, sampling_flags.BATCH_SIZE.value)
    cli.finish(out, {"out": str(out), "clips": clips})


def _guided(generator: "Generator", guide: str) -> "Generator":
    from mobile_video_jax.rewards.guided_generator import GuidedGenerator, make_guide

    if CRITIC.value is None:
        raise UserError("a guide counts by a critic: name its run with --critic=RUN, trained by configs/critic.py")
    return GuidedGenerator.of(generator, make_guide(guide, GUIDE_STRENGTH.value), str(CRITIC.value))


def _requests() -> "list[Request]":
    if bool(PROMPT.value) == bool(PROMPTS.value):
        raise UserError("say what to generate with --prompt or with --prompts=FILE, one of the two")
    from mobile_video_jax.generate.prompts import make_requests, read_requests

    if PROMPTS.value:
        return read_requests(PROMPTS.value, SEED.value, IMAGE.value)
    return make_requests(PROMPT.value, SEED.value, IMAGE.value)


if __name__ == "__main__":
    cli.run(main, distributed=True)
