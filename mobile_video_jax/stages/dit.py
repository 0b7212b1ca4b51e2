"""The text-to-video transformer's training stage."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.flops import count_flops, count_parameters, flops_by_part, parameters_by_part
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.data.latents import latent_batches, read_manifest
from mobile_video_jax.diffusion.guidance import drop_captions
from mobile_video_jax.diffusion.path import flow_matching_loss, interpolate, velocity_target
from mobile_video_jax.diffusion.timesteps import sample_times, stratified_times
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.nn.module import apply
from mobile_video_jax.stages.bundle import copy_bundle
from mobile_video_jax.train.checkpoint import restore_model
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params


@dataclasses.dataclass(frozen=True)
class DitTraining(TrainConfig):
    """Config of a transformer run: what the data must hold, the network and the objective."""

    stage: str = "dit"
    clip: str = "17x64x64"
    compression: str = "t4_s8_c16"
    text_encoder: str = "minilm"
    text_width: int = 384
    text_tokens: int = 16
    caption_dropout: float = 0.1
    time_shift: float = 1.0
    model: DitConfig = dataclasses.field(default_factory=DitConfig)


class DitStage:
    """Flow matching on normalised latents."""

    def __init__(self, config: DitTraining):
        self.config = config
        self.strides = Compression.parse(config.compression)
        self.clip = ClipShape.parse(config.clip)
        self.latent_shape = (*self.clip.latent(self.strides), self.strides.channels)
        self.dit = Dit(config.model)

    def _inputs(self, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        cfg = self.config
        return {
            "latents": jax.ShapeDtypeStruct((batch, *self.latent_shape), jnp.float32),
            "text": jax.ShapeDtypeStruct((batch, cfg.text_tokens, cfg.text_width), jnp.float32),
            "text_mask": jax.ShapeDtypeStruct((batch, cfg.text_tokens), jnp.bool_),
        }

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset()

    def model(self, params: Params) -> Params:
        return params

    def given(self, target: Params) -> Params:
        return restore_model(Path(self.config.init_from), target) if self.config.init_from else {}

    def init(self, rng: Rng) -> Params:
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self._inputs(1))
        return self.dit.init(rng, example["latents"], jnp.zeros(1), example["text"], example["text_mask"])["params"]

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        x0 = batch["latents"]
        noise = jax.random.normal(named_key(rng, "noise"), x0.shape)
        t = sample_times(named_key(rng, "times"), x0.shape[0], shift=self.config.time_shift)
        rate = self.config.caption_dropout
        text, mask = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate)
        return jnp.mean(self._velocity_errors(params, x0, noise, t, text, mask)), {}

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out velocity error at the quantiles of the training times, with captions."""
        x0 = batch["latents"]
        noise = jax.random.normal(named_key(rng, "noise"), x0.shape)
        t = stratified_times(x0.shape[0], shift=self.config.time_shift)
        return {"loss": jnp.mean(self._velocity_errors(params, x0, noise, t, batch["text"], batch["text_mask"]))}

    def _velocity_errors(self, params: Params, x0: Any, noise: Any, t: Any, text: Any, mask: Any) -> jax.Array:
        velocity = apply(self.dit, params, interpolate(x0, noise, t), t, text, mask)
        return flow_matching_loss(velocity, velocity_target(x0, noise))

    def train_batches(self) -> grain.IterDataset:
        return self._batches("train", train=True)

    def eval_batches(self) -> Iterable[dict[str, np.ndarray]]:
        return itertools.islice(self._batches("validation", train=False), self.config.eval_batches)

    def _batches(self, split: str, *, train: bool) -> grain.IterDataset:
        cfg = self.config
        return latent_batches(
            self._checked_data(),
            split,
            batch_size=cfg.batch_size,
            text_tokens=cfg.text_tokens,
            seed=cfg.seed,
            train=train,
            threads=cfg.loader_threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def _checked_data(self) -> Path:
        """The data folder. Raises UserError where it was encoded for another clip, VAE or text encoder."""
        folder = Path(self.config.data)
        manifest = read_manifest(folder)
        for key in ("clip", "compression", "text_encoder", "text_width"):
            wanted = getattr(self.config, key)
            if manifest[key] != wanted:
                raise UserError(
                    f"data set {folder} was encoded with {key}={manifest[key]}, the config has {wanted}: "
                    f"set --config.{key}={manifest[key]} or encode again"
                )
        return folder

    def cost(self) -> Cost:
        size = self.config.batch_size
        params = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))
        flops = count_flops(self.loss, params, self._inputs(size), jax.random.key(0))
        # The backward pass costs two products for each one of the forward pass.
        return Cost(size * self.clip.tokens(self.strides), 3 * sum(flops.values()))

    def description(self) -> dict[str, Any]:
        return {
            "compression": self.config.compression,
            "clip": str(self.clip),
            "latent_shape": list(self.latent_shape),
            "text_encoder": self.config.text_encoder,
            "parameters": count_parameters(nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))),
        }

    def inspect(self) -> dict[str, Any]:
        params = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))
        latents, text, mask = self._inputs(1).values()
        t = jax.ShapeDtypeStruct((1,), jnp.float32)
        return {
            **self.description(),
            "tokens": self.clip.tokens(self.strides),
            "parameters": parameters_by_part(params),
            "flops": flops_by_part(lambda p, *x: apply(self.dit, p, *x), params, latents, t, text, mask),
            "bytes": 4 * count_parameters(params),
        }

    def start(self, run: Path) -> None:
        """Copies the VAE of the latents into the run, which then holds all that sampling needs."""
        copy_bundle(self._checked_data() / "vae", run / "vae")

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None:
        """A transformer leaves nothing beside its checkpoints."""
