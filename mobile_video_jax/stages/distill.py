"""Step distillation: a student learns to draw in a few unguided steps what its teacher draws in many guided ones."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops, count_parameters
from mobile_video_jax.diffusion.guidance import drop_captions
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.collapse import collapse_metrics, collapse_reason
from mobile_video_jax.distill.discriminator import make_discriminator
from mobile_video_jax.distill.objective import CRITICS, CaptionedLatents, Objective
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.models.networks import build_network
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import read_pruned
from mobile_video_jax.stages.teacher import check_latents, in_its_dtype
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params

# What student and teacher must share, and the student's run decides.
SHARED = ("compression", "text_encoder", "text_width", "text_tokens")


def from_student(config: DistillTraining) -> DistillTraining:
    """The config with what the run in `init_from` says; unchanged without one.

    Raises UserError where that run knows no teacher and none is named, and where the teacher has other latents.
    """
    if not config.init_from:
        return config
    run = Run.open(config.init_from)
    student = run.denoiser.config
    name = config.teacher or run.config.get("teacher") or read_pruned(run).get("teacher")
    if not name:
        raise UserError(f"{run} learnt from no other run: name one to learn from with --config.teacher=RUN")
    teacher = Run.open(name).denoiser.config
    for key in SHARED:
        if getattr(teacher, key) != getattr(student, key):
            raise UserError(
                f"teacher {name} has {key}={getattr(teacher, key)}, student {run} {getattr(student, key)}: "
                "use runs on the same latents and captions"
            )
    shared = {key: getattr(student, key) for key in ("model", *SHARED)}
    return dataclasses.replace(config, **shared, teacher=name, teacher_model=teacher.model)


class DistillStage(DitStage):
    """The student's game (distill/objective.py). Parameters are {"generator", its opponent, "teacher"}."""

    config: DistillTraining

    def __init__(self, config: DistillTraining):
        if config.image_probability:
            raise UserError("distillation draws whole clips: set image_probability=0")
        super().__init__(config, Sampling(config.sampling_steps, guidance=1.0))
        teacher = config.teacher_model
        discriminator = make_discriminator(teacher, config.trunk_blocks, config.head, config.head_blocks)
        self.objective = Objective(self.denoiser.network, build_network(teacher), discriminator, config.objective)

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def init(self, rng: Rng) -> Params:
        inputs = self.denoiser.zero_inputs()
        teacher = self.objective.teacher.init(named_key(rng, "teacher"), *inputs)["params"]
        params = {"generator": super().init(rng), "teacher": in_its_dtype(teacher, self.config.teacher_model.dtype)}
        match CRITICS[self.config.objective.method]:
            case "critic":
                params["critic"] = teacher
            case "discriminator":
                judge = self.objective.discriminator
                seen = judge.features(nn.unbox(teacher), *inputs)
                head = judge.head.init(named_key(rng, "discriminator"), seen, self.denoiser.latent_shape[:3])
                params["discriminator"] = head["params"]
        return params

    def model(self, params: Params) -> Params:
        return params["generator"]

    def given(self, target: Params) -> Params:
        """The generator of `init_from`, its teacher, and the critic, which starts as the teacher (arXiv 2311.18828)."""
        runs = {"generator": self.config.init_from, "teacher": self.config.teacher, "critic": self.config.teacher}
        return {part: Run.open(run).params(target[part]) for part, run in runs.items() if run and part in target}

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        rate = self.config.caption_dropout
        text = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate, self.empty_caption)
        x0 = batch["latents"]
        times = self.denoiser.sampled_times(math.prod(x0.shape[1:4]))
        grid = time_grid(self.config.sampling_steps, **times)
        captioned = CaptionedLatents(x0, *text, batch.get("latent_mask"), self.empty_caption)
        return self.objective(params, captioned, grid, rng)

    @property
    def sampling(self) -> dict[str, Any]:
        """The steps that the student is trained for, without guidance."""
        return dataclasses.asdict(self.denoiser.sampling)

    def sample_config(self) -> SampleConfig:
        sampling = self.denoiser.sampling
        times: dict[str, Any] = self.denoiser.sampled_times(self.denoiser.tokens)
        return SampleConfig(sampling.steps, sampling.guidance, solver=sampling.solver, **times)

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Samples for held-out captions, from the same noise every time, beside real clips.

        `loss` is the distance of both in colour and in log motion and spread: how far the run is from collapse, not how
        good it is.
        """
        x0 = batch["latents"]
        config = dataclasses.replace(self.sample_config(), shift=self._shift_of(x0))
        noise = jax.random.normal(named_key(rng, "noise"), x0.shape)
        samples = sample_latents(self.denoiser.network, config, params, noise, batch["text"], batch["text_mask"])
        measures = collapse_metrics(samples, x0, batch.get("latent_mask"))
        off = jnp.abs(jnp.log(measures["motion"])) + jnp.abs(jnp.log(measures["spread"]))
        return {"loss": measures["colour"] + off, **measures}

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        return collapse_reason(metrics, self.config.watch)

    def _checked_data(self) -> list[Path]:
        """The data folders. Also raises UserError where student or teacher were trained on other latents."""
        folders = super()._checked_data()
        check_latents((self.config.init_from, self.config.teacher), folders[0])
        return folders

    def cost(self, devices: int | None = None) -> Cost:
        """The FLOPs of the gradient itself, as parts of it need no backward pass; what remat repeats does not count."""
        model, teacher_model = (
            dataclasses.replace(dit.config, remat="none") for dit in (self.denoiser.network, self.objective.teacher)
        )
        stage = DistillStage(dataclasses.replace(self.config, model=model, teacher_model=teacher_model))
        params = nn.unbox(jax.eval_shape(stage.init, jax.random.key(0)))
        teacher = params.pop("teacher")
        loss = lambda trained, teacher, *inputs: stage.loss(trained | {"teacher": teacher}, *inputs)[0]
        size = self.batch_size(self.clip, devices)
        flops = count_flops(jax.grad(loss), params, teacher, self.abstract_batch(devices), jax.random.key(0))
        return Cost(size * self.clip.tokens(self.strides), sum(flops.values()))

    def description(self) -> dict[str, Any]:
        shapes = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))
        parts = {f"{part}_parameters": count_parameters(shapes[part]) for part in shapes if part != "generator"}
        return {**super().description(), **parts, "sampling_steps": self.config.sampling_steps}
