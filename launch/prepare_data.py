"""Prepares a data set: python -m launch.prepare_data --source=DIR_OR_NAME --out=DIR

DIR is a folder of videos or pictures with captions.jsonl, a line {"file": "a.mp4", "caption": "..."} for each; or with
a text of the same name beside each, a metadata.csv or .parquet with columns file and caption, or WebDataset tars. A key
"group" (a film's name, say) keeps clips in one split. The embedded sets
are sample_clips (four real clips) and moving_shapes (synthetic; exact captions). Unusable files are listed with
their reasons in OUT/rejected.jsonl.

With --runner Beam checks and writes a folder's files, on many machines if need be, in shards of bounded size; the same
command resumes with what a stopped one has finished.
"""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import LARGEST_INT, Count, Range, Seed, Share
from mobile_video_jax.data.prepare.beam_job import RUNNERS, BeamJob
from mobile_video_jax.data.shapes.world import KNOWN, MAX_SIZE, World

if TYPE_CHECKING:
    from mobile_video_jax.data.prepare.prepare import Sharing

CountOrShare = Annotated[float, Range(0, LARGEST_INT)]
Number = flags.FlagHolder[float | None]
Whole = flags.FlagHolder[int | None]

SOURCE = flags.DEFINE_string("source", None, "A folder of videos, moving_shapes or sample_clips.", required=True)
OUT = cli.require_path("out", "The folder of the data set, made whole or not at all.")
TRAIN: Whole = cli.define_number("train", None, Count, "moving_shapes: clips to train on.")
VALIDATION: Number = cli.define_number(
    "validation", None, CountOrShare, "moving_shapes: a number of clips; a folder: a share, as 0.1."
)
TEST: Number = cli.define_number(
    "test", None, CountOrShare, "moving_shapes: a number of clips; a folder: a share, as 0.1."
)
SEED: Whole = cli.define_number("seed", None, Seed, "moving_shapes: the seed of all random choices.")
CLIP = cli.define_clip("clip", "", "moving_shapes: frames x height x width, as 17x64x64.")
WORLD = {
    name: flags.DEFINE_list(name, None, f"moving_shapes: some of {','.join(map(str, known))}.")
    for name, known in KNOWN.items()
}
SIZE: Number = cli.define_number(
    "size", None, Annotated[float, Range(0.8, MAX_SIZE)], "moving_shapes: size of the objects; above 1 for single ones."
)
FPS: Number = cli.define_number(
    "fps", None, Annotated[float, Range(0, 1000, open="low")], "A folder: resample videos by time to this frame rate."
)
SCENES: flags.FlagHolder[bool | None] = flags.DEFINE_bool(
    "scenes", None, "A folder: find cuts, which no clip then crosses (pip install -e '.[scenes]')."
)
MIN_FRAMES: Whole = cli.define_number("min_frames", None, Count, "A folder: shorter videos are rejected.")
MAX_REJECTED: Number = cli.define_number(
    "max_rejected", None, Share, "A folder: fail when a larger share than this is rejected."
)
RUNNER = flags.DEFINE_enum("runner", None, list(RUNNERS), "A folder: where Beam runs; without it this process works.")
PIPELINE_OPTIONS = flags.DEFINE_string(
    "pipeline_options", "", "Beam's own options, as '--project=P --region=R --temp_location=gs://BUCKET/tmp'."
)
SHARD_MEGABYTES = cli.define_number(
    "shard_megabytes", 512.0, Annotated[float, Range(1, 1_000_000)], "Beam: videos in a shard at most."
)


def main() -> None:
    from mobile_video_jax.data.prepare.prepare import prepare

    cli.finish(OUT.value, prepare(SOURCE.value, OUT.value, _sharing(), **_options()))


def _sharing() -> "Sharing | None":
    """The options of Beam, None without --runner."""
    from mobile_video_jax.data.prepare.prepare import Sharing

    if RUNNER.value:
        job = BeamJob(RUNNER.value, tuple(shlex.split(PIPELINE_OPTIONS.value)))
        return Sharing(job, round(SHARD_MEGABYTES.value * 1e6))
    unused: tuple[flags.FlagHolder[Any], ...] = (PIPELINE_OPTIONS, SHARD_MEGABYTES)
    for flag in unused:
        if flag.present:
            raise UserError(f"--{flag.name} is for Beam: give --runner too")
    return None


def _options() -> dict[str, Any]:
    """The flags that are set, as options of the source; `prepare` refuses those that it does not have."""
    sizes = {"train": TRAIN.value, "validation": VALIDATION.value, "test": TEST.value}
    world = {name: flag.value for name, flag in (*WORLD.items(), ("size", SIZE)) if flag.value is not None}
    options: dict[str, Any] = {
        "seed": SEED.value,
        "clip": ClipShape.parse(CLIP.value) if CLIP.value else None,
        "world": from_mapping(World, world, "world") if world else None,
        "fps": FPS.value,
        "scenes": SCENES.value or None,
        "min_frames": MIN_FRAMES.value,
        "max_rejected": MAX_REJECTED.value,
    }
    if SOURCE.value == "moving_shapes":
        options["sizes"] = {split: _whole(split, size) for split, size in sizes.items() if size is not None}
    else:
        options |= sizes
    return {name: value for name, value in options.items() if value is not None}


def _whole(split: str, size: float) -> int:
    if size != int(size):
        raise UserError(f"--{split}={size:g} is no number of clips: moving_shapes takes whole numbers")
    return int(size)


if __name__ == "__main__":
    cli.run(main)
