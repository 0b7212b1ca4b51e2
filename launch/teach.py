"""Stores a teacher's outputs beside latents: python -m launch.teach --model=RUN --data=DATA --out=DIR

DATA is an encoded data set, RUN a transformer of its VAE and text encoder, of any size. For every training clip
--draws noisy versions are made, and the teacher's velocity of each is written beside them, in shards as in DATA. DIR
is an encoded data set for configs/taught.py, which trains a student without the teacher in memory. A stopped job
resumes.
"""

from mobile_video_jax import cli
from mobile_video_jax.core.ranges import Seed, Share, Size

MODEL = cli.require_path("model", "The teacher's run directory.", exists=True)
CHECKPOINT = cli.define_checkpoint("model")
DATA = cli.require_path("data", "An encoded data set.", exists=True)
OUT = cli.require_path("out", "The folder of the taught data set.", local=True)
DRAWS = cli.define_number("draws", 4, Size, "Noisy versions of each clip.")
DROPOUT = cli.define_number("caption_dropout", 0.1, Share, "Probability that a version's caption is dropped.")
BATCH_SIZE = cli.define_number("batch_size", 32, Size, "Clips of one pass of the teacher.")
SEED = cli.define_number("seed", 0, Seed, "Seed of times, noise and dropped captions.")


def main() -> None:
    from mobile_video_jax.latents.taught import TeachOptions, teach
    from mobile_video_jax.models.run import Run
    from mobile_video_jax.parallel.distributed import one_writer

    options = TeachOptions(DRAWS.value, DROPOUT.value, BATCH_SIZE.value, SEED.value)
    with one_writer(OUT.value):
        manifest = teach(Run.open(MODEL.value, **CHECKPOINT.value), DATA.value, OUT.value, options)
    cli.finish(OUT.value, {"out": str(OUT.value), "taught": manifest["taught"], "splits": manifest["splits"]})


if __name__ == "__main__":
    cli.run(main)
