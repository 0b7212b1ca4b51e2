"""Training on a taught data set: a student of any size learns from a large teacher that is not in memory.

The first of S2DiT's two distillations (arXiv 2601.12719), from outputs that were stored once (latents/taught.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import interpolate, velocity_target
from mobile_video_jax.distill.kd import relative_errors
from mobile_video_jax.latents.store import TAUGHT, Record, read_manifest
from mobile_video_jax.latents.taught import noise_of, without_captions
from mobile_video_jax.stages.config import TaughtTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.noisy_batch import NoisyBatch
from mobile_video_jax.train.stage import Batch, Metrics, Params


class TaughtStage(DitStage):
    """Flow matching, and the distance from the teacher's velocity, on the noisy clips that the teacher saw.

    L = w |v - (noise - x0)|^2 + w_T |v - v_T|^2 / |v_T|^2. Each step takes one of a clip's stored versions at random.
    """

    config: TaughtTraining

    def __init__(self, config: TaughtTraining):
        super().__init__(config)
        if config.pad_durations or config.image_probability:
            raise UserError("a teacher's outputs are of whole clips: set pad_durations=False and image_probability=0")
        if config.caption_dropout:
            raise UserError(
                "captions are dropped where data are taught: set caption_dropout=0, or teach with another one"
            )

    @property
    def arrays_of(self) -> Callable[[Record], Record]:
        return taught_arrays

    @property
    def data_folders(self) -> list[Path]:
        """The data folders. Raises UserError also where one is not taught."""
        folders = super().data_folders
        for folder in folders:
            if TAUGHT not in read_manifest(folder):
                raise UserError(
                    f"{folder} holds no teacher's outputs: run python -m launch.teach --data={folder} first"
                )
        draws = {str(folder): read_manifest(folder)[TAUGHT]["draws"] for folder in folders}
        if len(set(draws.values())) > 1:
            raise UserError(
                f"data of one run have as many versions of each clip: teach all with one --draws, not {draws}"
            )
        return folders

    def abstract_batch(self, devices: int | None = None) -> Batch:
        batch = super().abstract_batch(devices)
        count, *shape = batch["latents"].shape
        draws = read_manifest(self.data_folders[0])[TAUGHT]["draws"] if self.has_data else 1
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "velocity": (tuple(shape), jnp.float16),
            "time": ((), jnp.float32),
            "dropped": ((), jnp.bool_),
            "seed": ((), jnp.uint32),
        }
        return batch | {
            _key(name): jax.ShapeDtypeStruct((count, draws, *each), dtype) for name, (each, dtype) in shapes.items()
        }

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        noisy, taught = self.taught_batch(batch, rng)
        velocity = self.denoiser.velocity(self.network_params(params), *noisy.inputs)
        flow, teacher = jnp.mean(noisy.errors(velocity)), jnp.mean(relative_errors(velocity, taught))
        loss = self.config.flow_weight * flow + self.config.teacher_weight * teacher
        return loss, {"flow_loss": flow, "teacher_loss": teacher}

    def taught_batch(self, batch: Batch, rng: Rng) -> tuple[NoisyBatch, Latents]:
        """One version of each clip, and the teacher's velocity of it."""
        x0, draws = batch["latents"], batch[_key("time")].shape[1]
        drawn = jax.random.randint(named_key(rng, "draws"), x0.shape[:1], 0, draws)
        of = {name: batch[_key(name)][jnp.arange(len(x0)), drawn] for name in ("velocity", "time", "dropped", "seed")}
        text = without_captions(of["dropped"], batch["text"], batch["text_mask"], self.empty_caption)
        noise, t = noise_of(of["seed"], x0.shape[1:]), of["time"]
        inputs = (interpolate(x0, noise, t), t, *text, None)
        return NoisyBatch(inputs, velocity_target(x0, noise), None), of["velocity"].astype(jnp.float32)


def taught_arrays(record: Record) -> Record:
    """A record's teacher's outputs as arrays of a batch; none of a held-out clip."""
    return {_key(name): np.asarray(value) for name, value in record.get(TAUGHT, {}).items()}


def _key(name: str) -> str:
    return f"{TAUGHT}_{name}"
