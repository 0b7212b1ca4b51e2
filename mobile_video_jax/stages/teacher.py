"""The frozen transformer that a student learns from."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.vae.latent_stats import LatentStats


def check_latents(runs: Iterable[str], folder: Path) -> None:
    """Raises UserError where one of the runs (empty: none) was trained on other latents than those of a data set."""
    for run in filter(None, runs):
        if LatentStats.load(storage_path(run) / "vae") != LatentStats.load(folder / "vae"):
            raise UserError(f"{run} was trained on other latents than {folder}: encode the data with its VAE")


def in_its_dtype(params: Any, dtype: str) -> Any:
    """Frozen matrices in the dtype that they are multiplied in: no step casts them, and bf16 takes half the room."""
    return jax.tree.map(lambda x: x.astype(dtype) if math.prod(x.shape) > max(x.shape) else x, params)
