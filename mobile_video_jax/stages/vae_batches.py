"""Batches of clips for the VAE, of one data set or of two, of one shape or of two."""

import itertools
from collections.abc import Iterable

import grain
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.data.dataset import MANIFEST, ClipSource, read_manifest
from mobile_video_jax.data.location import data_folder
from mobile_video_jax.data.pipeline import clip_batches
from mobile_video_jax.parallel.mesh import batch_shard
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.train.stage import Batch
from mobile_video_jax.train.synthetic import SYNTHETIC


def train_batches(config: VaeTraining, mesh: Mesh) -> grain.IterDataset:
    """Batches of `data` without end; by `mix_share` a part of each is from `mix_data`, or of all with `mix_clip`.

    Raises UserError where that part is no clip, or all of them.
    """
    if not config.mix_data:
        return data_batches(config, mesh)
    if config.mix_clip:
        second = _batches(config, config.mix_data, "train", config.batch_size, mesh, train=True, clip=config.mix_clip)
        shares = [1 - config.mix_share, config.mix_share]
        return grain.IterDataset.mix([data_batches(config, mesh), second.map(_of_second)], shares)
    mixed = round(config.batch_size * config.mix_share)
    if not 0 < mixed < config.batch_size:
        raise UserError(
            f"mix_share={config.mix_share:g} of a batch of {config.batch_size} clips is {mixed} of them: "
            "use a larger batch_size or another mix_share"
        )
    first = _batches(config, config.data, "train", config.batch_size - mixed, mesh, train=True)
    second = _batches(config, config.mix_data, "train", mixed, mesh, train=True).map(_of_second)
    return grain.experimental.ZipIterDataset([first, second]).map(_joined)


def data_batches(config: VaeTraining, mesh: Mesh) -> grain.IterDataset:
    """Training batches of `data` alone."""
    return _batches(config, config.data, "train", config.batch_size, mesh, train=True)


def eval_batches(config: VaeTraining, mesh: Mesh) -> Iterable[dict[str, np.ndarray]]:
    """Held-out batches of `data`; none where it has no validation split."""
    if config.data == SYNTHETIC or not read_manifest(data_folder(config.data))["splits"].get("validation"):
        return ()
    batches = _batches(config, config.data, "validation", config.batch_size, mesh, train=False)
    return itertools.islice(batches, config.eval_batches)


def frame_rate(config: VaeTraining) -> float | None:
    """Frames a second of the clips of `data`, where they are there and all have one."""
    folder = storage_path(config.data)
    manifest = read_manifest(folder) if config.data and (folder / MANIFEST).exists() else {}
    return float(manifest["fps"]) if manifest.get("fps") else None


def _batches(
    config: VaeTraining, data: str, split: str, batch_size: int, mesh: Mesh, *, train: bool, clip: str = ""
) -> grain.IterDataset:
    index, count = batch_shard(mesh)
    return clip_batches(
        ClipSource.open(data_folder(data)),
        split,
        ClipShape.parse(clip or config.clip),
        batch_size,
        config.seed,
        train=train,
        threads=config.loader_threads,
        process_index=index,
        process_count=count,
        native=config.native_share,
    )


def _of_second(batch: Batch) -> Batch:
    """A batch of the second data set; its records count down from -1, so that a report can tell them apart."""
    return {**batch, "record": -1 - batch["record"]}


def _joined(batches: tuple[Batch, Batch]) -> Batch:
    """One batch of two."""
    first, second = batches
    return {key: np.concatenate([first[key], second[key]]) for key in first}
