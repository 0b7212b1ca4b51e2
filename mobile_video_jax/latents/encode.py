"""Encoding a data set: latents and text states, shard by shard, resumable and shared by processes."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.claim import check_claim
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.dataset import read_manifest
from mobile_video_jax.data.pipeline import captioned_clips, video_shapes
from mobile_video_jax.latents.buckets import assign_buckets, check_buckets
from mobile_video_jax.latents.store import (
    MANIFEST,
    read_summary,
    shard_path,
    write_empty_caption,
    write_manifest,
    write_shard,
)
from mobile_video_jax.latents.store import read_manifest as read_encoded
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import VaeBundle, check_rows, on_mesh
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.distributed import is_first, wait_for_all
from mobile_video_jax.parallel.mesh import check_batch, make_mesh
from mobile_video_jax.text.encoder import TextEncoder, load_text_encoder

CLAIM = "inputs.json"


@dataclasses.dataclass(frozen=True)
class _Job:
    """A shard to write: the videos of one split with these numbers, cut to one shape."""

    path: Path
    split: str
    shape: ClipShape
    numbers: list[int]


def encode_dataset(
    vae_run: Run | Path,
    data: Path,
    out: Path,
    *,
    clips: Sequence[str] = (),
    text_encoder: str,
    batch_size: int,
    shard_records: int,
    text_tokens: int = 0,
    rows: int = 1,
) -> dict[str, Any]:
    """Encodes every split of a video data set and returns the manifest.

    Each video is cut to that of `clips` (the VAE's training clip if empty) which suits it best, see latents/buckets.py.
    A batch holds `batch_size` clips of the first shape, or as many of another as have no more pixels. Finished shards
    are kept, so a stopped job goes on where it was. Processes take the missing shards in turn, and a process's devices
    share every batch; `rows` of them share each clip. Captions of more than `text_tokens` tokens (0: the encoder's
    limit) are cut. The manifest comes last: a folder without one is not finished. Raises UserError where `out` was made
    from other inputs, and for clips that do not fit the videos.
    """
    vae_run = Run.open(vae_run, "vae")
    bundle, encoder = vae_run.vae(), load_text_encoder(text_encoder)
    if text_tokens:
        encoder = encoder.limited_to(text_tokens)
    given = clips or [vae_run.record["description"]["clip"]]
    shapes = [ClipShape.parse(clip).check(bundle.vae.config.strides) for clip in dict.fromkeys(given)]
    members = _members(data, shapes)
    manifest = {
        "clips": [str(shape) for shape in shapes],
        "compression": str(bundle.vae.config.strides),
        **_text_facts(encoder),
        "vae": vae_run.record,
        "source": read_manifest(data),
        "shard_records": shard_records,
        "splits": _sizes(members, shard_records),
    }
    mesh = make_mesh(MeshConfig(data=-1, tensor=rows), jax.local_devices())
    check_batch(batch_size, mesh)
    for shape in shapes:
        check_rows(bundle, shape, rows)
    wait_for_all("every process has read its inputs")  # so that what is wrong is refused by all at once
    check_claim(out, CLAIM, manifest, "encoded data set")
    jobs = _jobs(out, members, shard_records)
    missing = [job for job in jobs if not read_summary(job.path)]
    wait_for_all("the processes agree on what is missing")
    if is_first():
        if missing:
            (out / MANIFEST).unlink(missing_ok=True)
        write_json(out / CLAIM, manifest)
        vae_run.copy(out / "vae")
        if encoder.padded_to:
            write_empty_caption(out, encoder.empty())
    wait_for_all("the folder is claimed")
    sizes = {shape: _batch_size(shape, shapes[0], batch_size, mesh.shape["data"]) for shape in shapes}
    _encode_shards(bundle, mesh, encoder, data, missing[jax.process_index() :: jax.process_count()], sizes)
    wait_for_all("every process has written its shards")
    if is_first():
        _complete(out, manifest, jobs)
    wait_for_all("the manifest is written")
    return read_encoded(out)


def _text_facts(encoder: TextEncoder) -> dict[str, Any]:
    return {"text_encoder": encoder.name, "text_width": encoder.width, "text_limit": encoder.max_tokens}


def _sizes(members: dict[str, dict[ClipShape, list[int]]], shard_records: int) -> dict[str, dict[str, dict[str, int]]]:
    """Records and shards of each shape of each split."""
    return {
        split: {
            str(shape): {"records": len(numbers), "shards": -(-len(numbers) // shard_records)}
            for shape, numbers in parts.items()
        }
        for split, parts in members.items()
    }


def _members(data: Path, shapes: Sequence[ClipShape]) -> dict[str, dict[ClipShape, list[int]]]:
    """The numbers of each split's videos by the shape they are cut to. Raises UserError where they do not fit."""
    counts = {split: count for split, count in read_manifest(data)["splits"].items() if count}
    if len(shapes) == 1:
        for split in counts:
            captioned_clips(data, split, shapes[0])  # raises for clips that do not fit
        return {split: {shapes[0]: list(range(count))} for split, count in counts.items()}
    videos = {split: video_shapes(data, split) for split in counts}
    check_buckets(shapes, list(itertools.chain(*videos.values())))
    members = {split: assign_buckets(shapes, found) for split, found in videos.items()}
    for split, parts in members.items():
        for shape in parts:
            captioned_clips(data, split, shape, [])  # raises where a set of drawn clips has another size
    return members


def _jobs(out: Path, members: dict[str, dict[ClipShape, list[int]]], shard_records: int) -> list[_Job]:
    jobs = []
    for split, parts in members.items():
        for shape, numbers in parts.items():
            cuts = range(0, len(numbers), shard_records)
            paths = [shard_path(out, split, shape, i, len(cuts)) for i in range(len(cuts))]
            rows = [numbers[cut : cut + shard_records] for cut in cuts]
            jobs += [_Job(path, split, shape, some) for path, some in zip(paths, rows, strict=True)]
    return jobs


def _batch_size(shape: ClipShape, first: ClipShape, batch_size: int, devices: int) -> int:
    """As many clips as have the pixels of `batch_size` clips of the first shape, in whole devices and one at least."""
    pixels = batch_size * math.prod(dataclasses.astuple(first))
    return max(pixels // math.prod(dataclasses.astuple(shape)) // devices, 1) * devices


def _encode_shards(
    bundle: VaeBundle,
    mesh: Mesh,
    encoder: TextEncoder,
    data: Path,
    jobs: Sequence[_Job],
    batch_sizes: dict[ClipShape, int],
) -> None:
    encode, _ = on_mesh(bundle, mesh)
    progress = Progress("encode:", sum(len(job.numbers) for job in jobs))
    done = 0
    for job in jobs:
        clips = captioned_clips(data, job.split, job.shape, job.numbers)
        write_shard(job.path, list(_encoded(encode, encoder, clips, batch_sizes[job.shape])))
        done += len(job.numbers)
        progress.report(done, job.path.name)


def _complete(out: Path, manifest: dict[str, Any], jobs: Sequence[_Job]) -> None:
    """Writes the manifest of a folder that holds every shard. Raises UserError where one is missing."""
    summaries = [read_summary(job.path) for job in jobs]
    if missing := [job.path.name for job, summary in zip(jobs, summaries, strict=True) if not summary]:
        raise UserError(f"{out} lacks {len(missing)} shards, the first {missing[0]}: start the same command again")
    for left in out.glob(".*.partial"):  # by a process that was killed
        left.unlink()
    write_manifest(out, {**manifest, "text_tokens": max(summary["text_tokens"] for summary in summaries if summary)})


def _encoded(
    encode: Callable[[np.ndarray], np.ndarray], encoder: TextEncoder, clips: Iterable[dict[str, Any]], batch_size: int
) -> Iterator[dict[str, Any]]:
    clips, known = iter(clips), dict[str, np.ndarray]()
    while group := list(itertools.islice(clips, batch_size)):
        video = np.stack([clip["video"] for clip in group])
        # A short last batch is padded to the size that is compiled already.
        padded = np.concatenate([video, np.repeat(video[-1:], batch_size - len(group), axis=0)])
        latents = encode(padded)
        new = list({clip["caption"]: None for clip in group if clip["caption"] not in known})
        known |= dict(zip(new, encoder.encode(new), strict=True)) if new else {}
        for clip, row in zip(group, latents, strict=False):
            info = {key: clip[key] for key in ("caption", "id", "attributes")}
            yield {"latents": row, "text_states": known[clip["caption"]], **info}
