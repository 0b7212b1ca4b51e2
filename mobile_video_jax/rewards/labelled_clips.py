"""Generated clips as an encoded data set with labels: what a latent reward is trained on."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.dataset import read_manifest
from mobile_video_jax.data.shapes.shape_world import Attributes, prompts
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.data.video.write import write_mp4
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.latents.store import (
    Record,
    read_summary,
    records,
    shard_path,
    write_empty_caption,
    write_manifest,
    write_shard,
)
from mobile_video_jax.metrics.accuracy import attributes_right
from mobile_video_jax.metrics.shape_detector import detect
from mobile_video_jax.models.run import VAE
from mobile_video_jax.models.vae import on_mesh
from mobile_video_jax.rewards.labels import NAME, write_labels

CLAIM, CLIPS = "inputs.json", "clips"
SHARD = 256  # clips that are generated before a shard is written
SEED = 1000  # of the world's captions and the first clip's noise: others than those of training and evaluation
Prompts = Sequence[tuple[str, Mapping[str, Any]]]  # captions, and in the shape world their attributes


@dataclasses.dataclass(frozen=True)
class LabelJob:
    """Clips to generate and label: the prompts of each split, and of a world the attribute that decides ("all")."""

    prompts: Mapping[str, Prompts]
    config: SampleConfig
    out: Path
    world: World | None = None
    attribute: str = "all"


def world_of(data: Path) -> World:
    """The world that a prepared data set was rendered from. Raises UserError for real videos."""
    world = read_manifest(data)["world"]
    if not world:
        raise UserError(f"{data} holds no rendered shapes to label by themselves: name your own prompts with --prompts")
    return from_mapping(World, world)


def world_prompts(world: World, sizes: Mapping[str, int]) -> dict[str, Prompts]:
    """As many captions of each split, with their attributes, none of a held-out combination."""
    return {
        split: [(text, dataclasses.asdict(attributes)) for text, attributes in prompts(world, SEED, count, split)]
        for split, count in sizes.items()
    }


def own_prompts(texts: Sequence[str], held_out: int) -> dict[str, Prompts]:
    """Other prompts, the last of them held out. Raises UserError where none is left to train on."""
    if len(texts) <= held_out:
        raise UserError(f"{len(texts)} prompts are too few to hold {held_out} out: write more, or lower --validation")
    rows: Prompts = [(text, {}) for text in texts]
    cut = len(texts) - held_out
    return {"train": rows[:cut], "validation": rows[cut:]}


def label_clips(generator: Generator, job: LabelJob, batch_size: int = 32) -> dict[str, float]:
    """Generates the clips into an encoded data set, and labels them; returns the share that is right by split.

    In the shape world the detector labels them; other clips are written as clips/ID.mp4 for a person, who writes
    labels.jsonl. A stopped job resumes behind the shards that are there. Raises UserError where `out` holds anything
    else.
    """
    claim(job.out, CLAIM, _inputs(generator, job), "clips labelled by this command")
    splits = {split: count for split, rows in job.prompts.items() if (count := -(-len(rows) // SHARD))}
    total = sum(map(len, job.prompts.values()))
    progress, done = Progress("label:", total), 0
    for split, count in splits.items():
        rows = list(enumerate(job.prompts[split]))
        for index, start in enumerate(range(0, len(rows), SHARD)):
            path = shard_path(job.out, split, generator.clip, index, count)
            part = rows[start : start + SHARD]
            if read_summary(path) is None:
                write_shard(path, _generated(generator, job, split, part, batch_size))
            done += len(part)
            progress.report(done)
    _complete(generator, job, splits)
    return _labelled(generator, job, splits, batch_size)


def _inputs(generator: Generator, job: LabelJob) -> dict[str, Any]:
    return {
        "model": generator.run.record,
        "checkpoint": generator.run.step,
        "sampling": dataclasses.asdict(job.config),
        "prompts": {split: [text for text, _ in rows] for split, rows in job.prompts.items()},
        "attribute": job.attribute,
    }


def _generated(
    generator: Generator, job: LabelJob, split: str, rows: Sequence[tuple[int, Any]], batch_size: int
) -> list[Record]:
    made: list[Record] = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        filled = [*part, *[part[-1]] * (batch_size - len(part))]
        requests = [Request(text, SEED + number, None) for number, (text, _) in filled]
        latents = np.asarray(generator.latents(requests, job.config))
        states = generator.text_encoder.encode([text for _, (text, _) in part])
        for (number, (text, attributes)), clip, state in zip(part, latents, states, strict=False):
            name = f"{split}-{number}"
            made.append(
                {"latents": clip, "text_states": state, "caption": text, "id": name, "attributes": dict(attributes)}
            )
    return made


def _complete(generator: Generator, job: LabelJob, splits: Mapping[str, int]) -> None:
    """Writes the manifest, and what else an encoded data set holds."""
    config, shape = generator.denoiser.config, str(generator.clip)
    generator.run.vae_run().copy(job.out / VAE)
    if generator.text_encoder.keeps_empty:
        write_empty_caption(job.out, generator.text_encoder.empty())
    sizes = {split: {shape: {"records": len(job.prompts[split]), "shards": shards}} for split, shards in splits.items()}
    paths = [
        shard_path(job.out, split, generator.clip, index, count)
        for split, count in splits.items()
        for index in range(count)
    ]
    summaries = {path.name: read_summary(path) or {} for path in paths}
    manifest = {
        "clips": [shape],
        "compression": config.compression,
        "text_encoder": config.text_encoder,
        "text_width": config.text_width,
        "text_tokens": max(summary["text_tokens"] for summary in summaries.values()),
        "splits": sizes,
        "source": {"world": job.world and dataclasses.asdict(job.world), "fps": generator.denoiser.sampling.frame_rate},
        "files": {name: summary["bytes"] for name, summary in summaries.items()},
        "sha256": {name: summary["sha256"] for name, summary in summaries.items()},
    }
    write_manifest(job.out, manifest)


def _labelled(generator: Generator, job: LabelJob, splits: Mapping[str, int], batch_size: int) -> dict[str, float]:
    """Decodes the clips and labels them, or writes them as files for a person."""
    decode, labels, shares = on_mesh(generator.vae, generator.mesh)[1], dict[str, float](), dict[str, float]()
    for split in splits:
        rows = records(job.out, split)
        before = len(labels)
        while part := list(itertools.islice(rows, batch_size)):
            latents = np.stack([row["latents"] for row in part])
            clips = decode(np.concatenate([latents, np.repeat(latents[-1:], batch_size - len(part), axis=0)]))
            for row, frames in zip(part, clips, strict=False):
                if job.world is None:
                    write_mp4(job.out / CLIPS / f"{row['id']}.mp4", frames, generator.frame_rate)
                    continue
                right = attributes_right(job.world, Attributes(**row["attributes"]), detect(frames, job.world))
                labels[row["id"]] = float(right[job.attribute])
        if job.world is not None:
            shares[split] = float(np.mean(list(labels.values())[before:]))
    if job.world is not None:
        write_labels(job.out / NAME, labels)
    return shares
