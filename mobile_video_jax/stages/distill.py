"""Step distillation: a student learns to sample in a few unguided steps like its teacher in many guided ones."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.diffusion.guidance import drop_captions
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.collapse import collapse_metrics, collapse_reason
from mobile_video_jax.distill.discriminator import make_discriminator
from mobile_video_jax.distill.objective import CRITICS, CaptionedLatents, Objective
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.student import StudentStage
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params


class DistillStage(StudentStage):
    """The objective of distill/objective.py. Parameters also hold the method's "critic" or "discriminator"."""

    config: DistillTraining
    student = "generator"

    def __init__(self, config: DistillTraining):
        if config.image_probability:
            raise UserError("distillation trains whole clips: set image_probability=0")
        super().__init__(config, Sampling(config.sampling_steps, guidance=1.0))
        discriminator = make_discriminator(
            self.config.teacher_model, config.trunk_blocks, config.head, config.head_blocks
        )
        self.objective = Objective(self.denoiser.network, self.teacher.network, discriminator, config.objective)

    def init(self, rng: Rng) -> Params:
        params = super().init(rng)
        match CRITICS[self.config.objective.method]:
            case "critic":
                params["critic"] = self.teacher.init(named_key(rng, "teacher"))
            case "discriminator":
                discriminator = self.objective.discriminator
                features = discriminator.features(nn.unbox(params["teacher"]), *self.denoiser.zero_inputs())
                head_rng, grid = named_key(rng, "discriminator"), self.denoiser.latent_shape[:3]
                params["discriminator"] = discriminator.head.init(head_rng, features, grid)["params"]
        return params

    def pretrained(self, target: Params) -> Params:
        """Also the critic, which starts as the teacher (arXiv 2311.18828)."""
        params = super().pretrained(target)
        if "critic" in target and self.teacher_run:
            params["critic"] = self.teacher_run.params(target["critic"])
        return params

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        x0, rate, empty = batch["latents"], self.config.caption_dropout, self.empty_caption
        text = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate, empty)
        grid = time_grid(self.config.sampling_steps, **self._times(x0))
        return self.objective(params, CaptionedLatents(x0, *text, batch.get("latent_mask"), empty), grid, rng)

    def _times(self, latents: jax.Array) -> dict[str, float]:
        return self.denoiser.sampled_times(math.prod(latents.shape[1:4]))

    @property
    def sampling(self) -> dict[str, Any]:
        """The steps that the student is trained for, without guidance."""
        own = self.denoiser.sampling
        return super().sampling | {"steps": own.steps, "guidance": own.guidance, "solver": own.solver}

    def sample_config(self) -> SampleConfig:
        """The steps that the student is trained for, without guidance."""
        sampling, times = self.denoiser.sampling, self.denoiser.sampled_times(self.denoiser.tokens)
        return SampleConfig(sampling.steps, sampling.guidance, solver=sampling.solver).with_times(**times)

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Samples for held-out captions, from the same noise every time, beside real clips.

        `loss` is the distance of both in colour and in log motion and spread: the distance from collapse, no measure of
        quality.
        """
        x0 = batch["latents"]
        config = dataclasses.replace(self.sample_config(), shift=self.time_shift(x0))
        noise = jax.random.normal(named_key(rng, "noise"), x0.shape)
        samples = sample_latents(self.denoiser.network, config, params, noise, batch["text"], batch["text_mask"])
        metrics = collapse_metrics(samples, x0, batch.get("latent_mask"))
        log_ratios = jnp.abs(jnp.log(metrics["motion"])) + jnp.abs(jnp.log(metrics["spread"]))
        return {"loss": metrics["colour"] + log_ratios, **metrics}

    def collapse_reason(self, metrics: Mapping[str, float]) -> str | None:
        return collapse_reason(metrics, self.config.watch)

    def cost(self, devices: int | None = None) -> Cost:
        """FLOPs of the gradient itself, as parts of it need no backward pass; remat's repeated work is left out."""
        config = self.config
        models = {key: dataclasses.replace(getattr(config, key), remat="none") for key in ("model", "teacher_model")}
        stage = DistillStage(dataclasses.replace(config, **models))

        def loss(trained: Params, teacher: Params, batch: Batch, rng: Rng) -> Scalar:
            return stage.loss(trained | {"teacher": teacher}, batch, rng)[0]

        trained = {part: shapes for part, shapes in self.shapes.items() if part != "teacher"}
        inputs = (self.shapes["teacher"], self.abstract_batch(devices), jax.random.key(0))
        return Cost(self.batch_tokens(devices), sum(count_flops(jax.grad(loss), trained, *inputs).values()))

    def description(self) -> dict[str, Any]:
        return {**super().description(), "sampling_steps": self.config.sampling_steps}
