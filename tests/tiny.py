"""Tiny real runs and data sets for tests: random weights, real files."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.latents.store import shard_path, write_manifest, write_shard
from mobile_video_jax.stages.config import DISCRIMINATOR, DitTraining, VaeTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig, TrainConfig
from mobile_video_jax.train.run import write_run
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.model import Vae
from tests.nets import params_like, randomly

CLIP, COMPRESSION = "9x32x32", "t4_s8_c6"
VAE = VaeConfig(COMPRESSION, (8, 8, 12), (1, 1, 1), (8, 8, 12), (1, 1, 1), head_dim=6)
# Wide enough that its larger kernels are cut over a mesh (parallel/rules.py keeps small ones whole).
DIT = DitConfig(width=192, depth=1, heads=6, head_dim=32, ffn=384, time_features=32)
# AdamW compiles and steps in a third of Muon's time; tests/train/test_resume.py trains with the demo's Muon.
OPTIMIZER = OptimizerConfig(name="adamw", learning_rate=1e-2, schedule="linear", ema_decay=0.9)


def dit_config(data: Path, **changes) -> DitTraining:
    """A transformer run of a few seconds."""
    config = DitTraining(
        data=str(data),
        clip=CLIP,
        compression=COMPRESSION,
        text_tokens=12,
        model=DIT,
        optimizer=OPTIMIZER,
        steps=12,
        batch_size=8,
        log_every=1,
        eval_every=6,
        eval_batches=1,
        checkpoint_every=4,
    )
    return dataclasses.replace(config, **changes)


def vae_config(videos: Path, **changes) -> VaeTraining:
    """A VAE run of a few seconds."""
    config = VaeTraining(
        data=str(videos),
        clip=CLIP,
        model=VAE,
        optimizer=PlayersOptimizerConfig(**dataclasses.asdict(OPTIMIZER), opponent=DISCRIMINATOR),
        steps=20,
        batch_size=4,
        log_every=1,
        eval_every=10,
        eval_batches=2,
        checkpoint_every=10,
        stats_batches=8,
    )
    return dataclasses.replace(config, **changes)


def vae_run(run: Path) -> Path:
    """A finished VAE run with random weights."""
    LatentStats((0.1,) * 6, (0.5,) * 6).save(run)
    params = params_like(Vae(VAE), jnp.zeros((1, 9, 32, 32, 3)))
    return run_of(run, "vae", VaeTraining(clip=CLIP, model=VAE), params, compression=COMPRESSION, clip=CLIP)


def dit_run(run: Path, config: DitTraining) -> Path:
    """A finished transformer run with random weights, and its VAE's."""
    vae_run(run / "vae")
    return run_of(run, "dit", config, randomly(jax.eval_shape(DitStage(config).init, jax.random.key(0)), 0.05))


def run_of(run: Path, stage: str, config: TrainConfig, params: dict, **description: str) -> Path:
    save_model(run, 1, params)
    write_run(run, stage, json.loads(json.dumps(dataclasses.asdict(config))), description)
    return run


def latents(folder: Path, *, train: int = 24, validation: int = 8, clips: Sequence[str] = (CLIP,)) -> Path:
    """An encoded data set of random latents whose mean follows the caption, in two shards for each of the clips."""
    vae_run(folder / "vae")
    rng, splits = np.random.default_rng(0), {}
    for split, count in (("train", train), ("validation", validation)):
        splits[split] = {clip: {"records": count, "shards": 2} for clip in clips}
        for shape in map(ClipShape.parse, clips):
            for shard in range(2):
                rows = range(shard * count // 2, (shard + 1) * count // 2)
                path = shard_path(folder, split, shape, shard, 2)
                write_shard(path, [_record(rng, f"{split}-{i}", shape) for i in rows])
    manifest = {"clips": list(clips), "compression": COMPRESSION, "text_encoder": "minilm", "text_width": 384}
    write_manifest(folder, {**manifest, "text_tokens": 12, "splits": splits})
    return folder


def _record(rng: np.random.Generator, name: str, clip: ClipShape) -> dict:
    level = rng.normal()
    return {
        "latents": rng.normal(level, 0.1, (*clip.latent(Compression.parse(COMPRESSION)), 6)),
        "text_states": np.full((rng.integers(3, 12), 384), level),
        "caption": "a clip",
        "id": name,
        "attributes": {},
    }
