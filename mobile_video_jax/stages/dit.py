"""The text-to-video transformer's training stage."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import FrameTimes, Rng, Scalar
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import (
    count_flops,
    count_parameters,
)
from mobile_video_jax.diffusion.conditioning import frame_times
from mobile_video_jax.diffusion.guidance import drop_captions
from mobile_video_jax.diffusion.timesteps import sample_times, stratified_times
from mobile_video_jax.dit.lora import init_adapter, merged
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.training_samples import TrainingSamples, first_captions
from mobile_video_jax.models.adapter import check_adapter, record_base
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.nn.module import apply
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.latent_stage import LatentStage
from mobile_video_jax.stages.noised import Noised, goes_on, noised
from mobile_video_jax.stages.teacher import check_latents
from mobile_video_jax.train.config import OptimizerConfig
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params

SAMPLE_STEPS = 10  # a quarter of what launch.sample takes: enough to see whether a run learns


class DitStage(LatentStage):
    """Flow matching on normalised latents.

    Parameters are the network's; of an adapter {"adapter", "base"}, and a run leaves the adapter.
    """

    def __init__(self, config: DitTraining, sampling: Sampling = STANDARD):
        check_adapter(config.lora.rank, config.stage, config.init_from)
        super().__init__(config, sampling)

    @classmethod
    def of_run(cls, run: Run) -> "DitStage":
        """A run's denoiser as a stage that trains it plainly, whatever stage the run is of."""
        denoiser = run.denoiser
        names = {field.name for field in dataclasses.fields(OptimizerConfig)}
        optimizer = {key: value for key, value in run.config["optimizer"].items() if key in names}
        config = run.config_as(DitTraining, stage="dit", init_from="", optimizer=optimizer, lora={})
        return cls(config, denoiser.sampling)

    @functools.cached_property
    def source(self) -> Run | None:
        """The run that training starts from."""
        return Run.open(self.config.init_from) if self.config.init_from else None

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling of the run that training starts from, or the default."""
        return dataclasses.asdict(self.source.denoiser.sampling if self.source else self.denoiser.sampling)

    @property
    def sample_every(self) -> int:
        return self.config.sample_every

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"base"} if self.config.lora.rank else ())

    def model(self, params: Params) -> Params:
        return params | {"base": {}} if self.config.lora.rank else params

    def given(self, target: Params) -> Params:
        if not self.source:
            return {}
        if self.config.lora.rank:
            return {"base": self.source.params(target["base"])}
        params: Params = self.source.params(target)
        return params

    def init(self, rng: Rng) -> Params:
        network, lora = self.denoiser.init(rng), self.config.lora
        if not lora.rank:
            return network
        return {"adapter": init_adapter(lora, named_key(rng, "adapter"), network), "base": network}

    def network(self, params: Params) -> Params:
        """The network's parameters: W + alpha / rank A B where an adapter has factors of W."""
        lora = self.config.lora
        return merged(params["base"], params["adapter"], lora.scale) if lora.rank else params

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        asked = self.noised(batch, rng)
        return jnp.mean(asked.errors(apply(self.denoiser.network, self.network(params), *asked.inputs))), {}

    def noised(self, batch: Batch, rng: Rng) -> Noised:
        """A training step's question: random times, now and then an image to start from, now and then no caption."""
        x0, cfg = batch["latents"], self.config
        t = sample_times(named_key(rng, "times"), x0.shape[0], shift=self._shift_of(x0))
        if cfg.image_probability:
            given = jax.random.bernoulli(named_key(rng, "images"), cfg.image_probability, t.shape)
            t = frame_times(t, x0.shape[1], given & goes_on(batch))
        rate, empty = cfg.caption_dropout, self.empty_caption
        text = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate, empty)
        return noised(batch, t, *text, named_key(rng, "noise"))

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out velocity error at the quantiles of the training times, with captions, and with images as well."""
        x0, network = batch["latents"], self.network(params)

        def error(t: FrameTimes) -> Scalar:
            asked = noised(batch, t, batch["text"], batch["text_mask"], named_key(rng, "noise"))
            return jnp.mean(asked.errors(apply(self.denoiser.network, network, *asked.inputs)))

        t = stratified_times(x0.shape[0], shift=self._shift_of(x0))
        losses = {"loss": error(t)}
        if self.config.image_probability:
            losses["image_loss"] = error(frame_times(t, x0.shape[1], goes_on(batch)))
        return losses

    def _checked_data(self) -> list[Path]:
        """The data folders. Also raises UserError where an adapter's base was trained on other latents."""
        folders = super()._checked_data()
        if self.config.lora.rank:
            check_latents((self.config.init_from,), folders[0])
        return folders

    def _shift_of(self, latents: jax.Array) -> float:
        return self.denoiser.time_shift(math.prod(latents.shape[1:4]))

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        """Flow matching does not collapse."""
        return None

    def cost(self, devices: int | None = None) -> Cost:
        tokens = self.batch_size(self.clip, devices) * self.clip.tokens(self.strides)
        if self.config.lora.rank:
            return Cost(tokens, self._adapter_flops(devices))
        flops = count_flops(self.loss, self.denoiser.parameter_shapes, self.abstract_batch(devices), jax.random.key(0))
        # The backward pass costs two products for each one of the forward pass.
        return Cost(tokens, 3 * sum(flops.values()))

    def _adapter_flops(self, devices: int | None) -> int:
        """Those of the gradient itself, which needs no product for kernels without factors; remat is left out."""
        model = dataclasses.replace(self.config.model, remat="none")
        stage = DitStage(dataclasses.replace(self.config, model=model))
        params = nn.unbox(jax.eval_shape(stage.init, jax.random.key(0)))
        loss = lambda adapter, base, *inputs: stage.loss({"adapter": adapter, "base": base}, *inputs)[0]
        inputs = (self.abstract_batch(devices), jax.random.key(0))
        return sum(count_flops(jax.grad(loss), params["adapter"], params["base"], *inputs).values())

    def description(self) -> dict[str, Any]:
        described = self.denoiser.describe()
        if self.config.lora.rank:
            adapter = jax.eval_shape(self.init, jax.random.key(0))["adapter"]
            described["trainable_parameters"] = count_parameters(adapter)
        return described

    def inspect(self) -> dict[str, Any]:
        return self.description() | self.denoiser.inspect()

    def start(self, run: Path) -> None:
        """Copies the VAE of the latents into the run, which then holds or names all that sampling needs."""
        Run.open(self._checked_data()[0] / "vae", "vae").copy(run / "vae")
        if self.config.lora.rank and self.source:
            record_base(run, self.source.path)

    def sample(self, params: Params, step: int, run: Path) -> dict[str, float]:
        return self._samples.write(self.network(params), run / "samples" / str(step))

    def sample_config(self) -> SampleConfig:
        """How clips are sampled while the network trains."""
        times: dict[str, Any] = self.denoiser.sampled_times(self.denoiser.tokens)
        return SampleConfig(SAMPLE_STEPS, self.denoiser.sampling.guidance, **times)

    @functools.cached_property
    def _samples(self) -> TrainingSamples:
        cfg, data = self.config, self._checked_data()[0]
        captions, world = first_captions(data, cfg.sample_clips)
        vae = Run.open(data / "vae", "vae").vae()
        of_clips = (self.denoiser.latent_shape, cfg.text_tokens, captions, vae, world, self.empty_caption)
        return TrainingSamples(self.denoiser.network, self.sample_config(), *of_clips)

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None:
        """A transformer leaves nothing beside its checkpoints."""
