"""Prepares a data set: python -m launch.prepare_data --source=DIR_OR_NAME --out=DIR

DIR is a folder of videos or pictures with captions.jsonl, a line {"file": "a.mp4", "caption": "..."} for each; or with
a text of the same name beside each, a metadata.csv or .parquet with columns file and caption, or WebDataset tars. A key
"group" (a film's name, say) keeps clips in one split. The embedded sets
are sample_clips (four real clips) and moving_shapes (drawn; exact captions). Files that cannot be used are listed with
their reasons in OUT/rejected.jsonl.

With --runner Beam checks and writes a folder's files, on many machines if need be, in shards of bounded size; the same
command goes on with what a stopped one has finished.
"""

import shlex
from typing import Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.data.prepare.beam_job import RUNNERS, BeamJob
from mobile_video_jax.data.prepare.prepare import Sharing, prepare
from mobile_video_jax.data.shapes.world import KNOWN, World

SOURCE = flags.DEFINE_string("source", None, "A folder of videos, moving_shapes or sample_clips.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder of the data set, made whole or not at all.", required=True)
TRAIN = flags.DEFINE_integer("train", None, "moving_shapes: clips to train on.", lower_bound=1)
VALIDATION = flags.DEFINE_float("validation", None, "moving_shapes: a number of clips; a folder: a share, as 0.1.")
TEST = flags.DEFINE_float("test", None, "moving_shapes: a number of clips; a folder: a share, as 0.1.")
SEED = flags.DEFINE_integer("seed", None, "moving_shapes: the seed of all draws.", lower_bound=0)
CLIP = flags.DEFINE_string("clip", None, "moving_shapes: frames x height x width, as 17x64x64.")
WORLD = {
    name: flags.DEFINE_list(name, None, f"moving_shapes: some of {','.join(map(str, known))}.")
    for name, known in KNOWN.items()
}
SIZE = flags.DEFINE_float("size", None, "moving_shapes: size of the objects; above 1 for single ones alone.")
FPS = flags.DEFINE_float("fps", None, "A folder: resample videos by time to so many frames a second.")
MIN_FRAMES = flags.DEFINE_integer("min_frames", None, "A folder: shorter videos are rejected.", lower_bound=1)
MAX_REJECTED = flags.DEFINE_float("max_rejected", None, "A folder: fail when a larger share than this is rejected.")

RUNNER = flags.DEFINE_enum("runner", None, list(RUNNERS), "A folder: where Beam runs; without it this process works.")
PIPELINE_OPTIONS = flags.DEFINE_string(
    "pipeline_options", "", "Beam's own options, as '--project=P --region=R --temp_location=gs://BUCKET/tmp'."
)
SHARD_MEGABYTES = flags.DEFINE_float("shard_megabytes", 512.0, "Beam: videos in a shard at most.", lower_bound=1.0)


def main() -> None:
    out = storage_path(OUT.value)
    cli.finish(out, prepare(SOURCE.value, out, _sharing(), **_options()))


def _sharing() -> Sharing | None:
    """What Beam is told, where it is asked for."""
    if RUNNER.value:
        job = BeamJob(RUNNER.value, tuple(shlex.split(PIPELINE_OPTIONS.value)))
        return Sharing(job, round(SHARD_MEGABYTES.value * 1e6))
    for flag in (PIPELINE_OPTIONS, SHARD_MEGABYTES):
        if flag.present:
            raise UserError(f"--{flag.name} is for Beam: give --runner too")
    return None


def _options() -> dict[str, Any]:
    """The flags that were given, as options of the source; `prepare` refuses those that it does not have."""
    sizes = {"train": TRAIN.value, "validation": VALIDATION.value, "test": TEST.value}
    world: dict[str, Any] = {name: tuple(flag.value) for name, flag in WORLD.items() if flag.value is not None}
    if SIZE.value is not None:
        world["size"] = SIZE.value
    options: dict[str, Any] = {
        "seed": SEED.value,
        "clip": CLIP.value and ClipShape.parse(CLIP.value),
        "world": World(**_counted(world)) if world else None,
        "fps": FPS.value,
        "min_frames": MIN_FRAMES.value,
        "max_rejected": MAX_REJECTED.value,
    }
    if SOURCE.value == "moving_shapes":
        options["sizes"] = {split: _whole(split, size) for split, size in sizes.items() if size is not None}
    else:
        options |= sizes
    return {name: value for name, value in options.items() if value is not None}


def _counted(world: dict[str, Any]) -> dict[str, Any]:
    """The world's values, with its counts as numbers."""
    try:
        return {name: tuple(map(int, values)) if name == "counts" else values for name, values in world.items()}
    except ValueError:
        raise UserError(f"--counts takes numbers, as 1,2; got {','.join(world['counts'])}") from None


def _whole(split: str, size: float) -> int:
    if size < 0 or size != int(size):
        raise UserError(f"--{split}={size:g} is no number of clips: moving_shapes takes whole numbers")
    return int(size)


if __name__ == "__main__":
    cli.run(main)
