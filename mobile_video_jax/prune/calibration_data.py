"""The clips that units are scored on: a seeded shuffle of the training mix."""

import dataclasses
import itertools

import jax
from jax.sharding import Mesh

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.latents.batches import buckets
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import put_batch
from mobile_video_jax.prune.calibration import Calibration, calibration
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.vae.latent_stats import LatentStats


def calibration_stage(stage: DitStage, config: PruneConfig, data: str, layout: MeshConfig) -> DitStage:
    """The stage with the calibration's data, its own if `data` is empty, and its size and order of batches."""
    return DitStage(
        dataclasses.replace(
            stage.config,
            data=data or stage.config.data,
            seed=config.seed,
            batch_size=config.batch_clips,
            token_budget=0,
            mesh=layout,
        )
    )


def calibration_batches(config: PruneConfig, stage: DitStage, run: Run, mesh: Mesh) -> list[Calibration]:
    """The first batches of the training mix in the order of a seed, noisy, some clips without captions.

    Raises UserError for latents of another VAE, or too few clips.
    """
    folder, count = stage.data_folders[0], config.clips // config.batch_clips
    if LatentStats.load(folder / VAE) != LatentStats.load(run.path / VAE):
        raise UserError(f"{folder} holds latents of another VAE than {run} was trained on: encode them with its own")
    parts = buckets(stage.data_folders, "train", pad_durations=stage.config.pad_durations)
    if (clips := sum(len(bucket.source) for bucket in parts)) < config.clips:
        raise UserError(f"{folder} holds {clips} of the {config.clips} clips for calibration: lower --config.clips")
    keys = jax.random.split(jax.random.key(config.seed), count)
    noisy = jax.jit(calibration, static_argnames=("times", "shift", "caption_dropout"))
    batches = []
    for batch, key in zip(itertools.islice(stage.train_batches(mesh), count), keys, strict=True):
        batch.pop("record")
        clean = put_batch(batch, mesh)
        batches.append(
            noisy(
                clean,
                key,
                times=config.times,
                shift=stage.time_shift(clean["latents"]),
                caption_dropout=stage.config.caption_dropout,
                empty=stage.empty_caption,
            )
        )
    return batches
