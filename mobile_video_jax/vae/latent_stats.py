"""Per-channel mean and standard deviation of a VAE's latents, which all later stages normalise by."""

import dataclasses
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json

NAME = "latents.json"


@dataclasses.dataclass(frozen=True)
class LatentStats:
    """Mean and standard deviation of each latent channel over training clips."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def measure(cls, latents: list[np.ndarray]) -> "LatentStats":
        """Computes them from arrays [..., c]. Raises UserError for a channel that is constant or not finite."""
        values = np.concatenate([x.reshape(-1, x.shape[-1]) for x in latents]).astype(np.float64)
        std = values.std(axis=0)
        if not (np.isfinite(std).all() and std.min() > 0):
            raise UserError("a latent channel is constant or not finite: the VAE has not learnt; train it longer")
        return cls(tuple(values.mean(axis=0).tolist()), tuple(std.tolist()))

    def normalize(self, latents: Latents) -> Latents:
        """(z - mean) / std for each channel."""
        return (latents - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def denormalize(self, latents: Latents) -> Latents:
        """z * std + mean for each channel."""
        return latents * jnp.asarray(self.std) + jnp.asarray(self.mean)

    def save(self, run: Path) -> None:
        """Writes the statistics into a run directory."""
        write_json(run / NAME, dataclasses.asdict(self))

    @classmethod
    def load(cls, run: Path) -> "LatentStats":
        """Reads the statistics of a run. Raises UserError where they are missing or damaged."""
        missing = f"{run} has no latent statistics ({NAME}): let its VAE training finish first"
        advice = "train the VAE's last step again"
        values = read_json(run / NAME, "mean", "std", missing=missing, advice=advice)
        for name in ("mean", "std"):
            numbers = values[name] if isinstance(values[name], list) else [None]
            if not all(isinstance(number, float | int) and math.isfinite(number) for number in numbers):
                raise UserError(f"{run / NAME} is damaged ({name} holds no finite numbers): {advice}")
        return cls(tuple(values["mean"]), tuple(values["std"]))
