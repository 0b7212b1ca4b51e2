"""The VAE's training stage."""

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
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.flops import count_flops, count_parameters, flops_by_part, parameters_by_part
from mobile_video_jax.data.pipeline import clip_batches
from mobile_video_jax.nn.module import apply
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.losses import VaeLossConfig, reconstruction_loss
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_signed


@dataclasses.dataclass(frozen=True)
class VaeTraining(TrainConfig):
    """Config of a VAE run: the clips it sees, the network and the loss.

    `mix_data` is a second data set that fills the share `mix_share` of every training batch (real video beside drawn
    shapes, say). `stats_batches` batches of `data` measure the latents.
    """

    stage: str = "vae"
    clip: str = "17x64x64"
    mix_data: str = ""
    mix_share: float = 0.125
    stats_batches: int = 16
    model: VaeConfig = dataclasses.field(default_factory=VaeConfig)
    loss: VaeLossConfig = dataclasses.field(default_factory=VaeLossConfig)


class VaeStage:
    """Reconstruction of clips through a sampled posterior."""

    def __init__(self, config: VaeTraining):
        self.config = config
        self.clip = ClipShape.parse(config.clip).check(config.model.strides)
        self.vae = Vae(config.model)

    def init(self, rng: Rng) -> Params:
        return self.vae.init(rng, jnp.zeros((1, self.clip.frames, self.clip.height, self.clip.width, 3)))["params"]

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        video = to_signed(batch["video"])
        posterior = apply(self.vae, params, video, method="encode")
        decoded = apply(self.vae, params, posterior.sample(rng), method="decode")
        return reconstruction_loss(self.config.loss, video, decoded, posterior)

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out loss terms and PSNR (dB, peak 2 in [-1, 1]) of the posterior's mean, averaged over clips."""
        video = to_signed(batch["video"])
        posterior = apply(self.vae, params, video, method="encode")
        decoded = jnp.clip(apply(self.vae, params, posterior.mean, method="decode"), -1.0, 1.0)
        loss, parts = reconstruction_loss(self.config.loss, video, decoded, posterior)
        squared = jnp.mean((decoded - video) ** 2, axis=(1, 2, 3, 4))
        return {"loss": loss, "psnr": jnp.mean(10 * jnp.log10(4.0 / squared)), **parts}

    def train_batches(self) -> grain.IterDataset:
        cfg = self.config
        if not cfg.mix_data:
            return self._batches(cfg.data, "train", cfg.batch_size, train=True)
        mixed = round(cfg.batch_size * cfg.mix_share)
        first = self._batches(cfg.data, "train", cfg.batch_size - mixed, train=True)
        second = self._batches(cfg.mix_data, "train", mixed, train=True)
        return grain.experimental.ZipIterDataset([first, second]).map(_joined)

    def eval_batches(self) -> Iterable[dict[str, np.ndarray]]:
        batches = self._batches(self.config.data, "validation", self.config.batch_size, train=False)
        return itertools.islice(batches, self.config.eval_batches)

    def _batches(self, data: str, split: str, batch_size: int, *, train: bool) -> grain.IterDataset:
        return clip_batches(
            Path(data),
            split,
            self.clip,
            batch_size,
            self.config.seed,
            train=train,
            threads=self.config.loader_threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def cost(self) -> Cost:
        size = self.config.batch_size
        params = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))
        video = jax.ShapeDtypeStruct((size, self.clip.frames, self.clip.height, self.clip.width, 3), jnp.uint8)
        flops = count_flops(self.loss, params, {"video": video}, jax.random.key(0))
        # The backward pass costs two products for each one of the forward pass.
        return Cost(size * self.clip.tokens(self.config.model.strides), 3 * sum(flops.values()))

    def description(self) -> dict[str, Any]:
        strides = self.config.model.strides
        return {
            "compression": str(strides),
            "clip": str(self.clip),
            "latent_shape": [*self.clip.latent(strides), strides.channels],
            "parameters": count_parameters(nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))),
        }

    def inspect(self) -> dict[str, Any]:
        params = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))
        video = jax.ShapeDtypeStruct((1, self.clip.frames, self.clip.height, self.clip.width, 3), jnp.float32)
        return {
            **self.description(),
            "tokens": self.clip.tokens(self.config.model.strides),
            "parameters": parameters_by_part(params),
            "flops": flops_by_part(lambda params, video: apply(self.vae, params, video), params, video),
            "bytes": 4 * count_parameters(params),
        }

    def start(self, run: Path) -> None:
        """A VAE needs nothing from elsewhere."""

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None:
        """Measures the latents' mean and standard deviation on training clips of `data` and stores them in the run."""
        progress(f"vae: measuring the latents of {self.config.stats_batches} batches")
        encode = jax.jit(lambda params, video: apply(self.vae, params, to_signed(video), method="encode").mean)
        cfg = self.config
        batches = itertools.islice(self._batches(cfg.data, "train", cfg.batch_size, train=True), cfg.stats_batches)
        LatentStats.measure([np.asarray(encode(params, batch["video"])) for batch in batches]).save(run)


def _joined(batches: tuple[Batch, Batch]) -> Batch:
    """One batch of two; records of the second data set count down from -1, so that a report can tell them apart."""
    first, second = batches
    second = {**second, "record": -1 - second["record"]}
    return {key: np.concatenate([first[key], second[key]]) for key in first}
