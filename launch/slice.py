"""Takes one width of an elastic network: python -m launch.slice --model=RUN --width=0.5 --out=DIR

RUN was trained by configs/elastic.py. Writes the network of that width, 1 for the whole one, as a run that every
command accepts: it samples, trains on with --config.init_from=DIR and exports like any other. Started again, it
completes what it began.
"""

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import PositiveShare
from mobile_video_jax.core.storage import storage_path

MODEL = flags.DEFINE_string("model", "", "The run directory of an elastic network.")
CHECKPOINT = cli.define_checkpoint("model")
WIDTH = cli.define_number("width", None, PositiveShare, "The width: a share of the whole network's.")
OUT = cli.define_path("out", "The folder of the new run.", local=True)


def main() -> None:
    if not MODEL.value or OUT.value is None or WIDTH.value is None:
        raise UserError(
            "name the network with --model=RUN, one of its widths with --width=0.5 and a folder with --out=DIR"
        )
    from mobile_video_jax.core.lock import only_writer
    from mobile_video_jax.models.run import Run
    from mobile_video_jax.prune.width import slice_run

    run, out = Run.open(storage_path(MODEL.value), **CHECKPOINT.value), OUT.value
    with only_writer(out):
        summary = slice_run(run, WIDTH.value, out)
    cli.finish(out, summary)


if __name__ == "__main__":
    cli.run(main)
