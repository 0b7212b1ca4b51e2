"""Generates clips to train a reward on: python -m launch.label --model=RUN --data=data/clips --out=DIR

Of a data set of moving shapes the prompts are its world's, without the held-out combinations, and the rule-based
detector labels the clips: right where they show what was asked. --prompts=FILE names your own prompts instead; each
clip is then written as DIR/clips/ID.mp4, and you write DIR/labels.jsonl, a line {"id": "train-7", "label": 1} for each.
The folder is an encoded data set for configs/reward.py. A stopped job resumes.
"""

from absl import flags

from launch import sampling_flags
from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, CountOrZero

MODEL = cli.require_path("model", "The transformer's run directory.", exists=True)
DATA = cli.define_path("data", "A prepared data set of moving shapes, whose world the prompts are of.", exists=True)
PROMPTS = cli.define_path("prompts", "A list of your own prompts, FILE.txt or FILE.jsonl.", local=True)
OUT = cli.require_path("out", "The folder of the labelled clips.")
CLIPS = cli.define_number("clips", 2000, Count, "Clips to train on.")
VALIDATION = cli.define_number("validation", 256, CountOrZero, "Clips to hold out; of your own prompts the last ones.")
ATTRIBUTE = flags.DEFINE_enum(
    "attribute", "all", ("all", "count", "colour", "shape", "motion"), "What has to be right in the shape world."
)

flags.adopt_module_key_flags(sampling_flags)


def main() -> None:
    if DATA.value and PROMPTS.value:
        raise UserError("name the prompts with --data or with --prompts=FILE, one of the two")
    from mobile_video_jax.generate.generator import Generator
    from mobile_video_jax.generate.prompts import read_requests
    from mobile_video_jax.parallel.distributed import one_writer
    from mobile_video_jax.rewards.labelled_clips import LabelJob, label_clips, own_prompts, world_of, world_prompts

    if DATA.value:
        world = world_of(DATA.value)
        prompts = world_prompts(world, {"train": CLIPS.value, "validation": VALIDATION.value})
    elif PROMPTS.value:
        world, texts = None, [request.prompt for request in read_requests(PROMPTS.value, 0, [])]
        prompts = own_prompts(texts, VALIDATION.value)
    else:
        raise UserError("name the prompts with --data or with --prompts=FILE, one of the two")
    generator = Generator.load(
        MODEL.value,
        sampling_flags.vae(),
        sampling_flags.TEXT_ENCODER.value,
        fsdp=sampling_flags.FSDP.value,
        **sampling_flags.CHECKPOINT.value,
    )
    config = generator.sample_config(**sampling_flags.sampling()).with_times(**generator.times)
    with one_writer(OUT.value):
        job = LabelJob(prompts, config, OUT.value, world, ATTRIBUTE.value)
        right = label_clips(generator, job, sampling_flags.BATCH_SIZE.value)
    cli.finish(OUT.value, {"out": str(OUT.value), "right": right})


if __name__ == "__main__":
    cli.run(main)
