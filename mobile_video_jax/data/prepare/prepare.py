"""Makes a prepared data set from a source, whole or not at all."""

import contextlib
import dataclasses
import datetime
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.claim import is_free
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.core.lock import new_folder, only_writer
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.storage import ObjectPath
from mobile_video_jax.data.dataset import MANIFEST, Manifest, read_manifest
from mobile_video_jax.data.integrity import file_digest
from mobile_video_jax.data.prepare.beam_folder import WORK, build_in_shards, unfinished
from mobile_video_jax.data.prepare.beam_job import Spread
from mobile_video_jax.data.prepare.captions import Rejection
from mobile_video_jax.data.prepare.folder_scan import Clip, listing
from mobile_video_jax.data.prepare.notes import advice_on, notes_of
from mobile_video_jax.data.prepare.sources import Built, FolderSource, Source, TooManyRejected, find_source
from mobile_video_jax.data.prepare.splits import SPLITS
from mobile_video_jax.data.table import Row, write_table

REJECTED = "rejected.jsonl"


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Preparation of a folder of videos by many machines: what spreads the work, and the bytes of a shard at most."""

    spread: Spread
    shard_bytes: int


def prepare(source: str, out: Path, sharing: Sharing | None = None, **options: Any) -> dict[str, Any]:
    """Makes the data set `out` from a source and returns {accepted, rejected, shards, out}.

    `source` is "moving_shapes", "sample_clips" or a folder of videos with captions.jsonl; the options are the fields
    of its class in sources.py. `out` appears whole or not at all; one made earlier from the same is left as it is.
    With `sharing` it fills, shard by shard, and has a manifest when it is finished; a stopped one is resumed.
    Raises UserError for bad options, for an `out` that holds something else, and when too much of a folder is
    rejected; the reasons are then in `out`.rejected.jsonl.
    """
    chosen = find_source(source, options)
    recipe = _recipe(source, chosen)
    begun = sharing and (out / WORK).is_dir() and not (out / MANIFEST).exists()
    fresh = begun or is_free(out)
    manifest = _build(chosen, recipe, out, sharing) if fresh else _same(out, recipe)
    return {**{key: manifest[key] for key in ("accepted", "rejected", "shards")}, "out": str(out)}


def _recipe(name: str, source: Source) -> Manifest:
    """Everything that the data set depends on, as JSON gives it back."""
    values = dataclasses.asdict(source)  # type: ignore[call-overload]
    options = {name: value for name, value in values.items() if value is not None}
    path = options.pop("folder", None)
    if "clip" in options:
        options["clip"] = str(ClipShape(**options["clip"]))
    recipe = {"source": str(path or name), "options": options, "contents": source.contents()}
    same: Manifest = json.loads(json.dumps(recipe))
    return same


def _same(out: Path, recipe: Manifest) -> Manifest:
    """The manifest of `out` when it was made from the recipe."""
    if not (out / MANIFEST).is_file():
        if (out / WORK).is_dir():
            raise UserError(f"{out} is not finished: go on with the --runner that it was begun with, or remove it")
        raise UserError(f"{out} exists and is no data set: name another --out")
    manifest = read_manifest(out)
    for key, what in (("source", "another source"), ("options", "other options"), ("contents", "older files")):
        if manifest[key] != recipe[key]:
            raise UserError(f"{out} was made from {what}: remove it or name another --out")
    print(f"{out} is prepared already", file=sys.stderr)
    return manifest


def _build(source: Source, recipe: Manifest, out: Path, sharing: Sharing | None) -> Manifest:
    reasons = out.with_name(f"{out.name}.{REJECTED}")
    try:
        with _filled(source, recipe, out, sharing) as (folder, built):
            _write_rejected(folder / REJECTED, built.rejections)
            if built.clips:
                write_table(folder, {split: list(map(_row, clips)) for split, clips in built.clips.items()})
            manifest = {**recipe, **_manifest(built, folder, recipe), **_of_shapes(recipe["options"])}
            write_json(folder / MANIFEST, manifest)
    except TooManyRejected as error:
        _write_rejected(reasons, error.rejections)
        raise UserError(f"{error}: read {reasons}, mend the files or raise --max_rejected") from None
    reasons.unlink(missing_ok=True)  # of an earlier attempt
    _report(manifest, built.rejections, out)
    return manifest


def _report(manifest: Manifest, rejections: Sequence[Rejection], out: Path) -> None:
    """Says on stderr what the data set holds, and what may surprise."""
    say("clips: " + ", ".join(f"{count} {split}" for split, count in manifest["splits"].items()))
    if manifest["rejected"]:
        say(f"rejected {manifest['rejected']} of {manifest['accepted'] + manifest['rejected']}: see {out / REJECTED}")
    for note in [*manifest["notes"], *advice_on(manifest["splits"]["train"], rejections)]:
        say(f"note: {note}")


@contextlib.contextmanager
def _filled(source: Source, recipe: Manifest, out: Path, sharing: Sharing | None) -> Iterator[tuple[Path, Built]]:
    """The folder with all but the manifest, which makes it the data set `out`."""
    if sharing is None:
        with new_folder(out) as temporary:
            yield temporary, source.build(temporary)
    elif isinstance(source, FolderSource):
        options = {name: value for name, value in recipe["options"].items() if name != "max_rejected"}
        with only_writer(out), unfinished(out, {**recipe, "options": options, "shard_bytes": sharing.shard_bytes}):
            yield out, build_in_shards(source, out, sharing.spread, sharing.shard_bytes)
    else:
        raise UserError(f"{recipe['source']} is made by one process: leave out --runner")


def _row(clip: Clip) -> Row:
    info = clip.info
    return Row(
        id=clip.id,
        caption=clip.caption,
        origin=clip.origin,
        sha256=clip.sha256,
        frames=info.frames,
        height=info.height,
        width=info.width,
        fps=info.fps,
        scenes=info.scenes,
    )


def _manifest(built: Built, folder: Path, recipe: Manifest) -> Manifest:
    info = built.builder.info
    splits = {split: info.splits[split].num_examples if split in info.splits else 0 for split in SPLITS}
    sizes = {name: size for name, (size, _) in sorted(listing(folder).items())}
    shards = {name: size for name, size in sizes.items() if ".array_record" in name}
    empty = [f"{split} is empty: too few clips" for split, size in splits.items() if not size]
    notes = notes_of(built.clips, recipe["options"].get("fps", 0.0)) if built.clips else empty
    return {
        "kind": "video",
        "name": info.name,
        "version": str(info.version),
        "splits": splits,
        "accepted": sum(splits.values()),
        "rejected": len(built.rejections),
        "shards": len(shards),
        "files": shards,
        "sha256": {} if isinstance(folder, ObjectPath) else {name: file_digest(folder / name) for name in shards},
        "shortest": built.shortest,
        "fps": built.fps,
        "notes": notes,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _of_shapes(options: Manifest) -> Manifest:
    """The clip and the world of rendered shapes; None for real videos, which fit any clip."""
    return {key: options.get(key) for key in ("clip", "world")}


def _write_rejected(path: Path, rejections: Sequence[Rejection]) -> None:
    with replacing(path) as temporary, contextlib.closing(temporary.open("w")) as file:
        file.writelines(json.dumps(dataclasses.asdict(rejection)) + "\n" for rejection in rejections)
