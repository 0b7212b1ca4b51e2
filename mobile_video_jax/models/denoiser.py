"""Trained denoisers: the network, the latents and captions it knows, its times, and how it is to be sampled."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters, flops_by_part, largest_products, parameters_by_part
from mobile_video_jax.diffusion.timesteps import token_shift
from mobile_video_jax.dit.cost_groups import cost_group
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.models.adapter import restore_transformer
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.rules import parameter_shardings
from mobile_video_jax.train.checkpoint import abstract
from mobile_video_jax.train.run import read_run

# The stages whose runs hold one denoiser. Their configs hold the fields of DenoiserConfig beside their own.
STAGES = ("dit", "recover", "distill")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a denoiser is to be sampled unless told otherwise: solver steps, guidance scale and solver."""

    steps: int = 40
    guidance: float = 5.0
    solver: str = "euler"


class Denoiser:
    """A network that predicts the velocity of noisy latents [b lt lh lw c], for clips of the shape `clip`."""

    def __init__(self, config: DenoiserConfig, sampling: Sampling = Sampling()):
        self.config, self.sampling = config, sampling
        self.strides = Compression.parse(config.compression)
        self.clip = ClipShape.parse(config.clip)
        self.network = Dit(config.model)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """[lt lh lw c] of one clip."""
        return self.latent_shape_of(self.clip)

    def latent_shape_of(self, clip: ClipShape) -> tuple[int, int, int, int]:
        """[lt lh lw c] of a clip of another shape."""
        return (*clip.latent(self.strides), self.strides.channels)

    @property
    def tokens(self) -> int:
        """Latent positions of one clip."""
        return self.clip.tokens(self.strides)

    def input_shapes(self, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of `batch` clips and their captions: latents, text states, text mask."""
        cfg = self.config
        return {
            "latents": jax.ShapeDtypeStruct((batch, *self.latent_shape), jnp.float32),
            "text": jax.ShapeDtypeStruct((batch, cfg.text_tokens, cfg.text_width), jnp.float32),
            "text_mask": jax.ShapeDtypeStruct((batch, cfg.text_tokens), jnp.bool_),
        }

    def init(self, rng: Rng) -> Any:
        """Random parameters, each with its logical axis names."""
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.input_shapes(1))
        return self.network.init(rng, example["latents"], jnp.zeros(1), example["text"], example["text_mask"])["params"]

    def parameter_shapes(self) -> Any:
        """The shapes of the network's parameters."""
        return nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))

    def describe(self) -> dict[str, Any]:
        """What run.json says of it: latents, captions, the count of parameters."""
        return {
            "compression": self.config.compression,
            "clip": str(self.clip),
            "latent_shape": list(self.latent_shape),
            "text_encoder": self.config.text_encoder,
            "parameters": count_parameters(self.parameter_shapes()),
        }

    def inspect(self) -> dict[str, Any]:
        """What one forward pass of one clip costs, by part, from shapes alone: FLOPs, bytes, largest activations."""
        params, inputs = self.parameter_shapes(), self.input_shapes(1)
        arguments = (
            params,
            inputs["latents"],
            jax.ShapeDtypeStruct((1,), jnp.float32),
            inputs["text"],
            inputs["text_mask"],
        )
        forward = lambda p, *inputs: apply(self.network, p, *inputs)
        counts = parameters_by_part(params, cost_group)
        return {
            **self.describe(),
            "tokens": self.tokens,
            "parameters": counts,
            "flops": flops_by_part(forward, *arguments, part_of=cost_group),
            "bytes": 4 * counts["total"],
            "bytes_by_part": {part: 4 * count for part, count in counts.items()},
            "activation_bytes": largest_products(forward, *arguments, part_of=cost_group),
        }

    def time_shift(self, tokens: int) -> float:
        """The shift of the times that clips of so many tokens are trained and sampled at."""
        return token_shift(tokens) if self.config.shift_follows_tokens else self.config.time_shift

    def sampled_times(self, tokens: int) -> dict[str, Any]:
        """What time_grid takes for clips of so many tokens."""
        return {"shift": self.time_shift(tokens), "terminal": self.config.time_terminal}


def read_denoiser(run: Path) -> Denoiser:
    """The denoiser of a run. Raises UserError for a run of another kind."""
    config = trained_config(run)
    return Denoiser(from_mapping(DenoiserConfig, known(DenoiserConfig, config)), _sampling(config))


def trained_config(run: Path) -> dict[str, Any]:
    """The config that a denoiser's run was trained with. Raises UserError for a run of another kind."""
    record = read_run(run)
    if record["stage"] not in STAGES:
        raise UserError(f"{run} is a run of stage '{record['stage']}', which holds no transformer: name another run")
    config: dict[str, Any] = record["config"]
    return config


def _sampling(config: Mapping[str, Any]) -> Sampling:
    """A distilled run is sampled in the steps that it was trained for, without guidance."""
    return Sampling(config["sampling_steps"], guidance=1.0) if "sampling_steps" in config else Sampling()


def known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are fields of a config class."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in values.items() if key in names}


def restore_on(mesh: Mesh, run: Path, denoiser: Denoiser) -> Any:
    """A run's EMA parameters, an adapter's merged into its base's, sharded over the mesh."""
    boxed = jax.eval_shape(denoiser.init, jax.random.key(0))
    return restore_transformer(run, jax.tree.map(abstract, nn.unbox(boxed), parameter_shardings(boxed, mesh)))
