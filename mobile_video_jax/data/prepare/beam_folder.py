"""A folder of videos made into a data set by many machines, in shards of bounded size.

TFDS has builders that run on Beam. GeneratorBasedBuilder sends every video through a shuffle and holds a shard in
memory, ShardBasedBuilder makes two steps of the graph for each shard, and both throw away what they have when a job
stops (tensorflow_datasets 4.9.10, core/writer.py and core/split_builder.py). So Beam only spreads the work here;
records, names of files and metadata are those of TFDS.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, replacing, write_json
from mobile_video_jax.data.prepare.beam_job import Blocks, Spread
from mobile_video_jax.data.prepare.folder_scan import Check, Checked, Clip, file_size, scan
from mobile_video_jax.data.prepare.members import Member, locate
from mobile_video_jax.data.prepare.sources import Built, FolderSource
from mobile_video_jax.data.prepare.video_folder import VideoFolder, features, record
from mobile_video_jax.data.video.probe import VideoInfo

WORK = "unfinished"  # the folder of the job's own files, gone at the end
RECIPE = "recipe.json"
FILES_A_BLOCK = 200  # checked by a machine at a time: what is lost when it goes
QUESTIONS_AT_ONCE = 32  # an object store answers a single one slowly


@contextlib.contextmanager
def unfinished(out: Path, recipe: Mapping[str, Any]) -> Iterator[Path]:
    """Marks `out` as an unfinished data set of the recipe, or resumes one; the mark is removed at the end.

    Raises UserError for one that was begun from another recipe.
    """
    begun = out / WORK / RECIPE
    if not begun.exists():
        write_json(begun, recipe)
    elif read_json(begun) != recipe:
        raise UserError(f"{out} was begun with other files or options: remove it or name another --out")
    yield out
    epath.Path(out / WORK).rmtree()


def build_in_shards(source: FolderSource, out: Path, spread: Spread, shard_bytes: int) -> Built:
    """Checks the folder's videos and writes them to `out`, in shards of at most `shard_bytes` or one video each.

    The clips, their splits and their order are those of `source.build`. `out` is marked with `unfinished`.
    Raises UserError where `source.build` does.
    """
    blocks = Blocks(out / WORK, spread)

    def check_all(check: Check, names: Sequence[str]) -> Iterable[Checked | str]:
        answers = blocks.map("checks", functools.partial(_as_json, check), names, FILES_A_BLOCK)
        return (answer if isinstance(answer, str) else Checked.from_json(answer) for answer in answers)

    clips, rejections = scan(source.check, check_all)
    splits = source.split(clips, rejections)
    shards = {split: in_shards(chosen, shard_bytes) for split, chosen in splits.items() if chosen}
    builder = VideoFolder(data_dir=str(out), clips={})
    folder = out / builder.name / str(builder.version)
    files = {
        split: tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(folder), dataset_name=builder.name, split=split, filetype_suffix="array_record"
        )
        for split in shards
    }
    questions = [
        {
            "file": files[split].sharded_filepath(shard_index=index, num_shards=len(parts)).name,
            "clips": [[clip.id, clip.caption, clip.info.to_json()] for clip in part],
        }
        for split, parts in shards.items()
        for index, part in enumerate(parts)
    ]
    sizes = blocks.map("shards", functools.partial(write_shard, source.folder, folder), questions)
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(part) for part in parts],
            num_bytes=sum(itertools.islice(sizes, len(parts))),
            filename_template=files[split],
        )
        for split, parts in shards.items()
    ]
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.info.write_to_directory(folder)
    for partial in folder.glob(".*.partial"):  # by a worker that was killed
        partial.unlink()
    return Built.of_videos(builder, splits, rejections, source.fps)


def in_shards(clips: Sequence[Clip], shard_bytes: int) -> list[list[Clip]]:
    """Cuts the clips, in order, into shards of at most so many bytes of files; a larger file has one of its own."""
    with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
        sizes = list(pool.map(_clip_size, clips))
    shards: list[list[Clip]] = []
    room = 0
    for clip, size in zip(clips, sizes, strict=True):
        if not shards or size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(clip)
        room -= size
    return shards


def write_shard(source: Path, folder: Path, question: Mapping[str, Any]) -> int:
    """Writes one shard of a folder's videos, whole or not at all, and returns the bytes of its records."""
    kinds = features()
    serializer = tfds.core.example_serializer.ExampleSerializer(kinds.get_serialized_info())
    size = 0
    with replacing(folder / question["file"]) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")  # read at random, as TFDS writes them
        for name, caption, info in question["clips"]:
            clip = Clip(name, locate(source, name), caption, VideoInfo.from_json(info))
            blob = serializer.serialize_example(kinds.encode_example(record(clip)))
            writer.write(blob)
            size += len(blob)
        writer.close()
    return size


def _clip_size(clip: Clip) -> int:
    return clip.file.size if isinstance(clip.file, Member) else file_size(clip.file)


def _as_json(check: Check, name: str) -> dict[str, Any] | str:
    answer = check(name)
    return answer if isinstance(answer, str) else answer.to_json()
