"""Trained models read back from run directories."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.files import replacing
from mobile_video_jax.nn.module import apply
from mobile_video_jax.train.checkpoint import FOLDER, newest_step, restore_model
from mobile_video_jax.train.run import NAME as RUN_JSON
from mobile_video_jax.train.run import read_run
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.latent_stats import NAME as STATS_JSON
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.model import Vae


@dataclasses.dataclass(frozen=True)
class VaeBundle:
    """A trained VAE, ready to code clips."""

    vae: Vae
    params: Any
    stats: LatentStats

    @classmethod
    def load(cls, run: Path) -> "VaeBundle":
        """Reads a VAE run. Raises UserError where it is missing, unfinished or damaged."""
        vae = Vae(from_mapping(VaeConfig, read_run(run, "vae")["config"]["model"]))
        stats = LatentStats.load(run)
        space = vae.config.strides.space
        return cls(vae, restore_params(run, vae, jnp.zeros((1, 1, space, space, 3))), stats)

    def encode(self, params: Any, video: jax.Array) -> jax.Array:
        """Normalised latents (the posterior's mean) of clips in [-1, 1]."""
        return self.stats.normalize(apply(self.vae, params, video, method="encode").mean)

    def decode(self, params: Any, latents: jax.Array) -> jax.Array:
        """Clips in about [-1, 1] of normalised latents."""
        return apply(self.vae, params, self.stats.denormalize(latents), method="decode")


def restore_params(run: Path, module: nn.Module, *example: Any) -> Any:
    """A run's averaged weights on the first device, for a module called with arrays like `example`."""
    shapes = nn.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), *example)["params"]))
    device = SingleDeviceSharding(jax.local_devices()[0])
    return restore_model(run, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes))


def copy_bundle(run: Path, out: Path) -> None:
    """Copies what using a run needs (its newest model, run.json, latent statistics), unless `out` is there already."""
    if out.exists():
        return
    read_run(run)
    step = newest_step(run)
    with replacing(out) as temporary:
        shutil.copytree(run / FOLDER / str(step) / "model", temporary / FOLDER / str(step) / "model")
        for name in (RUN_JSON, STATS_JSON):
            if os.path.exists(run / name):
                shutil.copy(run / name, temporary / name)
