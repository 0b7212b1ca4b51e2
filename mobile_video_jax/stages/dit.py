"""The text-to-video transformer's training stage."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import FrameTimes, Latents, Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.core.storage import local_path
from mobile_video_jax.cost.flops import count_flops, count_parameters
from mobile_video_jax.diffusion.chunk_times import chunk_times
from mobile_video_jax.diffusion.conditioning import frame_times
from mobile_video_jax.diffusion.guidance import drop_captions
from mobile_video_jax.diffusion.timesteps import sample_times, stratified_times
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.lora import init_adapter, merged
from mobile_video_jax.dit.middle import check_drop
from mobile_video_jax.dit.token_drop import kept_tokens, sparse_velocity
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.training_samples import (
    SamplePrompts,
    TrainingSamples,
    held_out_prompts,
    read_prompts,
)
from mobile_video_jax.models.adapter import check_adapter, record_base
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.latent_stage import LatentStage
from mobile_video_jax.stages.noisy_batch import NoisyBatch, has_later_frames, noisy_batch
from mobile_video_jax.text.encoder import load_text_encoder
from mobile_video_jax.train.config import OptimizerConfig
from mobile_video_jax.train.held_out import mean_over_clips
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params, Samples

SAMPLE_STEPS = 10  # a quarter of the steps of a finished run: enough to see whether it learns


class DitStage(LatentStage):
    """Flow matching on normalised latents.

    Parameters are the network's, or {"adapter", "base"} where an adapter of the run in `init_from` is trained.
    """

    config: DitTraining
    adapter: ClassVar[str] = "adapter"  # the part that an adapter is

    def __init__(self, config: DitTraining, sampling: Sampling = STANDARD):
        check_adapter(config.lora.rank, config.stage, config.init_from)
        super().__init__(config, sampling)
        if config.token_drop or config.path_drop:
            self._check_token_drop()
        if config.temporal_only:
            self._check_temporal()

    def _check_token_drop(self) -> None:
        """Raises UserError where the network, or the loss, needs all tokens."""
        if type(self).loss is not DitStage.loss:
            raise UserError(f"stage '{self.config.stage}' trains on all tokens: set token_drop=0 and path_drop=0")
        setting = "token_drop" if self.config.token_drop else "path_drop"
        if not isinstance(self.config.model, DitConfig):
            raise UserError(f"{setting} is for transformers: leave it out")
        check_drop(self.config.model, setting)

    def _check_temporal(self) -> None:
        """Raises UserError where layers over time alone cannot be trained."""
        cfg = self.config
        if not cfg.model.temporal_modules:
            raise UserError("temporal_only trains layers over time, which this network has none of: set model.temporal")
        if cfg.lora.rank or cfg.stage != "dit":
            raise UserError(f"temporal_only takes plain training, not an adapter or stage '{cfg.stage}': leave it out")
        if self.denoiser.latent_shape[0] == 1:
            raise UserError(f"a clip of {cfg.clip} is an image, which skips layers over time: use longer clips")

    @classmethod
    def of_run(cls, run: Run) -> "DitStage":
        """A run's denoiser as a stage that trains it plainly, whatever stage the run is of."""
        denoiser = run.denoiser
        names = {field.name for field in dataclasses.fields(OptimizerConfig)}
        optimizer = {key: value for key, value in run.config["optimizer"].items() if key in names}
        config = run.config_as(
            DitTraining, stage="dit", init_from="", optimizer=optimizer, lora={}, temporal_only=False
        )
        return cls(config, denoiser.sampling)

    def init(self, rng: Rng) -> Params:
        network, lora = self.denoiser.init(rng), self.config.lora
        if not lora.rank:
            return network
        return {"adapter": init_adapter(lora, named_key(rng, "adapter"), network), "base": network}

    def network_params(self, params: Params) -> Params:
        """The network's parameters: W + alpha / rank A B where an adapter has factors of W."""
        lora = self.config.lora
        return merged(params["base"], params["adapter"], lora.scale) if lora.rank else params

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        noisy, network_params = self.training_batch(batch, rng), self.network_params(params)
        if self.config.token_drop or self.config.path_drop:
            velocity = self._sparse_velocity(network_params, noisy, rng)
        else:
            velocity = self.denoiser.velocity(network_params, *noisy.inputs)
        return jnp.mean(noisy.errors(velocity)), {}

    def _sparse_velocity(self, params: Params, noisy: NoisyBatch, rng: Rng) -> Latents:
        """The velocity where some of the tokens, and all of some clips, pass by the middle blocks."""
        cfg, (clips, frames, *rows, _) = self.config, noisy.inputs[0].shape
        kept = kept_tokens(named_key(rng, "tokens"), frames, math.prod(rows), cfg.token_drop)
        past = jax.random.bernoulli(named_key(rng, "past"), cfg.path_drop, (clips,)) if cfg.path_drop else None
        return sparse_velocity(self.denoiser.network, params, kept, *noisy.inputs, past=past)

    def training_batch(self, batch: Batch, rng: Rng) -> NoisyBatch:
        """A batch at random times, some clips with a conditioning frame and some without a caption."""
        x0, cfg = batch["latents"], self.config
        t = self.training_times(x0, named_key(rng, "times"))
        if cfg.image_probability and t.ndim == 1:
            is_conditioned = jax.random.bernoulli(named_key(rng, "images"), cfg.image_probability, t.shape)
            t = frame_times(t, x0.shape[1], is_conditioned & has_later_frames(batch))
        rate, empty = cfg.caption_dropout, self.empty_caption
        text = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate, empty)
        return noisy_batch(batch, t, *text, named_key(rng, "noise"))

    def training_times(self, x0: Latents, rng: Rng) -> FrameTimes:
        """A time for each clip, or where the network is causal one for each chunk."""
        (clips, frames), shift, size = x0.shape[:2], self.time_shift(x0), self.config.model.stream_chunk
        return chunk_times(rng, clips, frames, size, shift=shift) if size else sample_times(rng, clips, shift=shift)

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out velocity error at the quantiles of the training times, with captions, and with images as well."""
        x0, network_params = batch["latents"], self.network_params(params)

        def error(t: FrameTimes) -> Scalar:
            noisy = noisy_batch(batch, t, batch["text"], batch["text_mask"], named_key(rng, "noise"))
            return mean_over_clips(noisy.errors(self.denoiser.velocity(network_params, *noisy.inputs)), batch)

        t = stratified_times(x0.shape[0], shift=self.time_shift(x0))
        losses = {"loss": error(t)}
        if self.config.image_probability:
            losses["image_loss"] = error(frame_times(t, x0.shape[1], has_later_frames(batch)))
        return losses

    def time_shift(self, latents: jax.Array) -> float:
        """The shift of the times of latents [b lt lh lw c]."""
        return self.denoiser.time_shift(math.prod(latents.shape[1:4]))

    @property
    def frozen(self) -> frozenset[str]:
        if self.config.temporal_only:
            return frozenset(self.shapes.keys() - self.config.model.temporal_modules)
        return frozenset({"base"} if self.config.lora.rank else ())

    def ema_params(self, params: Params) -> Params:
        """All parameters, or the adapter's without its base."""
        return params | {"base": {}} if self.config.lora.rank else params

    def pretrained(self, target: Params) -> Params:
        """The network of `init_from`, which is the base of an adapter, and may be of images where this one has layers
        over time. Raises UserError where it has such layers and this one has not.
        """
        if not self.source:
            return {}
        self.denoiser.check_continues(self.source.denoiser)
        if self.config.lora.rank:
            return {"base": self.source.params(target["base"])}
        theirs = self.source.denoiser.config.model.temporal_modules
        if gone := sorted(theirs - self.config.model.temporal_modules):
            raise UserError(f"the run of init_from has {gone[0]}, this network not: set model.temporal as it was there")
        new = self.config.model.temporal_modules - theirs
        return self.source.params({part: tree for part, tree in target.items() if part not in new})

    @property
    def sampling(self) -> dict[str, Any]:
        """That of `sampled_like`, at the frame rate of the data if they know it; a reuse table is of other weights."""
        rate = self.data_frame_rate
        own = dataclasses.asdict(self.sampled_like.sampling) | {"reuse": ()}
        return own | ({"frame_rate": rate} if rate else {})

    @property
    def sampled_like(self) -> Denoiser:
        """The denoiser whose sampling the trained one takes over: that of the run that training starts from."""
        return self.source.denoiser if self.source else self.denoiser

    def start(self, run: Path) -> None:
        super().start(run)
        if self.config.lora.rank and self.source:
            record_base(run, self.source.path, self.source.step)

    @property
    def sample_every(self) -> int:
        return self.config.sample_every

    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        if self.config.temporal_only and not self.source:
            raise UserError("temporal_only keeps all else as it is in init_from: name a run of the image network there")
        if self.sample_every:
            _ = self._samples  # prompts that cannot be sampled are refused before a run directory is made
        return super().train_batches(mesh)

    def sample(self, params: Params, step: int, run: Path) -> Samples:
        """Writes clips for `sample_prompts`, or for held-out captions, into RUN/samples/STEP."""
        return self._samples.write(self.network_params(params), run / "samples" / str(step))

    @functools.cached_property
    def _samples(self) -> TrainingSamples:
        data = self.data_folders[0]
        return TrainingSamples(
            denoiser=self.denoiser,
            config=self.sample_config(),
            prompts=self._prompts(data),
            vae=Run.open(data / VAE, VAE).vae(),
            empty=self.empty_caption,
        )

    def _prompts(self, data: Path) -> SamplePrompts:
        config = self.config
        if not config.sample_prompts:
            return held_out_prompts(data, config.sample_clips)
        encoder = load_text_encoder(config.sample_text_encoder or config.text_encoder)
        if encoder.name != config.text_encoder:
            raise UserError(
                f"the data hold text states of {config.text_encoder}, sample_text_encoder is {encoder.name}"
            )
        return read_prompts(local_path(config.sample_prompts), encoder, config.text_tokens)

    def sample_config(self) -> SampleConfig:
        """The settings of samples while the network trains."""
        times = self.denoiser.sampled_times(self.denoiser.tokens)
        return SampleConfig(SAMPLE_STEPS, self.denoiser.sampling.guidance).with_times(**times)

    def cost(self, devices: int | None = None) -> Cost:
        if not self.config.lora.rank:
            return super().cost(devices)
        return Cost(self.batch_tokens(devices), self._adapter_flops(devices))

    def _adapter_flops(self, devices: int | None) -> int:
        """FLOPs of the gradient itself, which needs no product for kernels without factors; remat is left out."""
        model = dataclasses.replace(self.config.model, remat="none")
        stage = DitStage(dataclasses.replace(self.config, model=model))

        def loss(adapter: Params, base: Params, batch: Batch, rng: Rng) -> Scalar:
            return stage.loss({"adapter": adapter, "base": base}, batch, rng)[0]

        inputs = (self.abstract_batch(devices), jax.random.key(0))
        return sum(count_flops(jax.grad(loss), self.shapes["adapter"], self.shapes["base"], *inputs).values())

    def description(self) -> dict[str, Any]:
        described = self.denoiser.describe()
        if self.config.lora.rank:
            described["trainable_parameters"] = count_parameters(self.shapes[self.adapter])
        return described

    def inspect(self) -> dict[str, Any]:
        return self.description() | self.denoiser.inspect()
