"""Encoding a data set: latents and text states, shard by shard, resumable and shared by processes."""

import concurrent.futures
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.ahead import ahead
from mobile_video_jax.core.claim import check_claim
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.clip_loader import Window
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.latents.plan import EncodeOptions, ShardJob, plan_jobs, plan_members, shard_sizes
from mobile_video_jax.latents.store import (
    MANIFEST,
    Record,
    read_shard_records,
    read_summary,
    write_empty_caption,
    write_manifest,
    write_shard,
)
from mobile_video_jax.latents.store import read_manifest as read_encoded
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.models.vae import VaeBundle, check_rows, on_mesh
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.distributed import claimed, is_first, wait_for_all
from mobile_video_jax.parallel.mesh import check_batch, make_mesh
from mobile_video_jax.text.encoder import TextEncoder, load_text_encoder
from mobile_video_jax.train.checkpoint import newest_step

CLAIM = "inputs.json"
BATCHES_AHEAD = 2  # decoded batches that wait for the device


@dataclasses.dataclass(frozen=True)
class Encoding:
    """All that encodes clips: the VAE over a mesh, the text encoder, and the options."""

    bundle: VaeBundle
    mesh: Mesh
    text: TextEncoder
    shapes: list[ClipShape]
    options: EncodeOptions

    @classmethod
    def load(cls, vae_run: Run, options: EncodeOptions) -> "Encoding":
        """Raises UserError for clips that the VAE cannot code and batches that the devices cannot share."""
        bundle, text = vae_run.vae(), load_text_encoder(options.text_encoder)
        if options.text_tokens:
            text = text.limited_to(options.text_tokens)
        clips = options.clips or (vae_run.record["description"]["clip"],)
        shapes = [ClipShape.parse(clip).check(bundle.vae.config.strides) for clip in dict.fromkeys(clips)]
        mesh = make_mesh(MeshConfig(data=-1, tensor=options.rows), jax.local_devices())
        check_batch(options.batch_size, mesh)
        for shape in shapes:
            check_rows(bundle.vae.config.strides, shape, options.rows)
        return cls(bundle, mesh, text, shapes, options)

    def batch_size(self, shape: ClipShape) -> int:
        """As many clips as have the pixels of a batch of the first shape, in whole devices and one at least."""
        pixels = self.options.batch_size * math.prod(dataclasses.astuple(self.shapes[0]))
        devices = self.mesh.shape["data"]
        size: int = max(pixels // math.prod(dataclasses.astuple(shape)) // devices, 1) * devices
        return size


def encode_dataset(vae_run: Run | Path, data: Path, out: Path, options: EncodeOptions) -> dict[str, Any]:
    """Encodes every split of a video data set and returns the manifest.

    Finished shards are kept, so a stopped job resumes; of a data set that has changed since, the records that are the
    same are kept as well. Each process takes the next missing shard when it begins one, and a process's devices share
    every batch. The manifest comes last: a folder without one is not finished. Raises UserError where `out` was made
    with other options, for clips that do not fit the videos, and for captions without tokens, before anything is
    encoded.
    """
    vae_run = Run.open(vae_run, "vae")
    source, encoding = ClipSource.open(data), Encoding.load(vae_run, options)
    members = plan_members(source, encoding.shapes, options)
    jobs = plan_jobs(out, source, members, options)
    _check_captions(source, encoding.text)
    claim = _claim(vae_run, source, encoding)
    wait_for_all("every process has read its inputs")  # so that what is wrong is refused by all at once
    check_claim(out, CLAIM, claim, "encoded data set", functools.partial(_renewed, out, source))
    missing = [job for job in jobs if not _is_finished(job)]
    wait_for_all("the processes agree on what is missing")
    if is_first():
        if missing:
            (out / MANIFEST).unlink(missing_ok=True)
        write_json(out / CLAIM, claim)
        vae_run.copy(out / VAE)
        if encoding.text.keeps_empty:
            write_empty_caption(out, encoding.text.empty())
    wait_for_all("the folder is claimed")
    _encode_shards(encoding, source, missing, sum(len(job.windows) for job in missing) // jax.process_count())
    wait_for_all("every process has written its shards")
    if is_first():
        _complete(out, claim | {"splits": shard_sizes(members, options.shard_records)}, source, jobs)
    wait_for_all("the manifest is written")
    return read_encoded(out)


def _claim(vae_run: Run, source: ClipSource, encoding: Encoding) -> dict[str, Any]:
    """Settings that every shard of a folder must be made with; the records themselves are compared one by one."""
    return {
        "clips": [str(shape) for shape in encoding.shapes],
        "compression": str(encoding.bundle.vae.config.strides),
        "text_encoder": encoding.text.name,
        "text_width": encoding.text.width,
        "text_limit": encoding.text.max_tokens,
        "vae": vae_run.record,
        "vae_step": vae_run.step,
        "source": _origin(source),
        "shard_records": encoding.options.shard_records,
        **encoding.options.windows,
    }


def _origin(source: ClipSource) -> dict[str, Any]:
    return {key: source.manifest[key] for key in ("source", "name")}


def _renewed(out: Path, source: ClipSource, claim: dict[str, Any]) -> dict[str, Any]:
    """The claim of a folder as this version writes it.

    Older versions held a folder to the whole manifest of its data set, as their shards do not tell which records they
    hold. Raises UserError where that manifest has changed.
    """
    claim = {"vae_step": newest_step(out / VAE), **claim}
    if "splits" not in claim:
        return claim
    if claim["source"] != source.manifest:
        raise UserError(
            f"{out} was encoded by an older version, and the data set has changed since: name another --out"
        )
    return {key: value for key, value in claim.items() if key != "splits"} | {"source": _origin(source)}


def _check_captions(source: ClipSource, text: TextEncoder) -> None:
    """Raises UserError for a caption that the text encoder makes no tokens of, and tells where it is written."""
    for split in source.sizes:
        rows = source.rows(split)
        captions = list(dict.fromkeys(row.caption for row in rows))
        for i in text.without_tokens(captions):
            row = next(row for row in rows if row.caption == captions[i])
            raise UserError(
                f"the caption of {row.id} ({row.origin}) has no words for {text.name}: {row.caption!r}; "
                "mend it there and prepare the data set again"
            )


def _is_finished(job: ShardJob) -> bool:
    """True where a shard is there and holds the job's records; shards of older versions do not tell which they hold."""
    summary = read_summary(job.path)
    return summary is not None and summary.get("keys", job.keys) == job.keys


@dataclasses.dataclass(frozen=True)
class _Decoded:
    """A batch of a shard's clips, ready for the device, and what of the shard is encoded already, by key."""

    job: ShardJob
    before: dict[str, Record]
    clips: list[tuple[dict[str, Any], Window]]
    video: np.ndarray | None  # padded to the size that is compiled; None where nothing is to be encoded
    is_last: bool


def _decoded(encoding: Encoding, source: ClipSource, jobs: Iterable[ShardJob]) -> Iterator[_Decoded]:
    """The batches of all jobs, one job after the other."""
    for job in jobs:
        before = read_shard_records(job.path, set(job.keys))
        windows = [window for window, key in zip(job.windows, job.keys, strict=True) if key not in before]
        clips = captioned_clips(source, job.split, job.shape, windows, encoding.options.threads or os.cpu_count() or 1)
        pairs, size = zip(clips, windows, strict=True), encoding.batch_size(job.shape)
        for start in range(0, max(len(windows), 1), size):
            group = list(itertools.islice(pairs, size))
            video = _padded([clip["video"] for clip, _ in group], size) if group else None
            yield _Decoded(job, before, group, video, start + size >= len(windows))


def _padded(videos: Sequence[np.ndarray], size: int) -> np.ndarray:
    """A batch, a short last one padded to the size that is compiled already."""
    video = np.stack(videos)
    return np.concatenate([video, np.repeat(video[-1:], size - len(video), axis=0)])


def _encode_shards(encoding: Encoding, source: ClipSource, jobs: Sequence[ShardJob], count: int) -> None:
    """Encodes the shards that this process takes of `jobs`, which are `count` clips.

    At the same time clips are decoded, for the batches that follow, and captions are encoded and shards written, of
    the one before.
    """
    encode, _ = on_mesh(encoding.bundle, encoding.mesh)
    progress, done = Progress("encode:", count), 0
    rows: list[tuple[dict[str, Any], Window, np.ndarray]] = []
    with concurrent.futures.ThreadPoolExecutor(1) as writer:
        writing: concurrent.futures.Future[None] | None = None
        for batch in ahead(_decoded(encoding, source, claimed(jobs)), BATCHES_AHEAD):
            if batch.video is not None:
                latents = encode(batch.video)
                rows += [(clip, window, row) for (clip, window), row in zip(batch.clips, latents, strict=False)]
            if not batch.is_last:
                continue
            if writing:
                writing.result()
            writing, rows = writer.submit(_write, encoding.text, batch.job, batch.before, rows), []
            done += len(batch.job.windows)
            progress.report(done, batch.job.path.name)
        if writing:
            writing.result()


def _write(
    text: TextEncoder,
    job: ShardJob,
    before: dict[str, Record],
    rows: Sequence[tuple[dict[str, Any], Window, np.ndarray]],
) -> None:
    captions = list(dict.fromkeys(clip["caption"] for clip, _, _ in rows))
    states = dict(zip(captions, text.encode(captions), strict=True)) if captions else {}
    new = iter([_record(clip, window, row, states[clip["caption"]]) for clip, window, row in rows])
    write_shard(job.path, [before[key] if key in before else next(new) for key in job.keys], job.keys)


def _record(clip: dict[str, Any], window: Window, latents: np.ndarray, text_states: np.ndarray) -> Record:
    name = clip["id"] if window.start is None else f"{clip['id']}#{window.start}"
    info = {"caption": clip["caption"], "id": name, "attributes": clip["attributes"]}
    return {"latents": latents, "text_states": text_states, **info}


def _complete(out: Path, manifest: dict[str, Any], source: ClipSource, jobs: Sequence[ShardJob]) -> None:
    """Writes the manifest of a folder that holds every shard. Raises UserError where one is missing."""
    summaries = [read_summary(job.path) for job in jobs]
    if missing := [job.path.name for job, summary in zip(jobs, summaries, strict=True) if not summary]:
        raise UserError(f"{out} lacks {len(missing)} shards, the first {missing[0]}: start the same command again")
    names = {job.path.name for job in jobs}
    for path in out.glob(".*.partial"):  # by a process that was killed
        path.unlink()
    for path in out.glob("*.array_record"):
        if path.name not in names:  # of the data set before it changed
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
    described = {key: value for key, value in source.manifest.items() if key not in ("files", "sha256")}
    shards = {
        "source": described,
        "text_tokens": max(summary["text_tokens"] for summary in summaries if summary),
        "files": {job.path.name: summary["bytes"] for job, summary in zip(jobs, summaries, strict=True) if summary},
        "sha256": {job.path.name: summary["sha256"] for job, summary in zip(jobs, summaries, strict=True) if summary},
    }
    write_manifest(out, manifest | shards)
