"""Step distillation: a student learns to sample in a few unguided steps like its teacher in many guided ones."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.diffusion.guidance import drop_captions
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.captioned import CaptionedLatents
from mobile_video_jax.distill.collapse import collapse_metrics, collapse_reason
from mobile_video_jax.distill.knowledge import KnowledgeObjective
from mobile_video_jax.distill.objective import CRITICS, Trained
from mobile_video_jax.dit.lora import init_adapter, switched_on
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.models.adapter import check_named
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.nn.module import init
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill_objective import check_objective, make_objective
from mobile_video_jax.stages.noisy_batch import has_later_frames
from mobile_video_jax.stages.step_student import is_trainable
from mobile_video_jax.stages.student import TIMES, StudentStage, check_shared
from mobile_video_jax.stages.teacher_adapters import (
    adapters_of,
    check_base_is_teacher,
    check_few_step_times,
    few_step_adapter,
    few_step_lora,
    with_adapters,
)
from mobile_video_jax.train.stage import Batch, Cost, Loss, Metrics, Params


class DistillStage(StudentStage):
    """The objective of distill/objective.py. Parameters also hold the method's "critic" or "discriminator".

    With `lora` the student is the teacher with an adapter, and so are kdmd's critic and its few-step teacher: these
    parts are factors alone.
    """

    config: DistillTraining
    student = adapter = "generator"

    def __init__(self, config: DistillTraining):
        check_objective(config)
        super().__init__(
            config, Sampling(config.sampling_steps, guidance=1.0, solver=config.solver, reuse=config.reuse)
        )
        self.objective = make_objective(self.config, self.denoiser, self.teacher)

    @classmethod
    def build(cls, config: DistillTraining) -> "StudentStage":
        """Also with `teacher` as `init_from` where an adapter is trained."""
        if config.lora.rank and config.init_from and not config.teacher:
            config = dataclasses.replace(config, teacher=config.init_from)
        if config.teacher and not config.init_from:  # of a fresh student, which no run completes
            config = dataclasses.replace(config, few_step_lora=few_step_lora(config, Run.open(config.teacher)))
        stage = super().build(config)
        check_few_step_times(stage.config, stage.denoiser)
        return stage

    @classmethod
    def default_teacher(cls, config: DistillTraining) -> str:
        """The run in `init_from`, where no loss asks for a teacher's answers and a discriminator alone reads it."""
        return "" if config.objective.asks_teacher else config.init_from

    @classmethod
    def completions(cls, config: DistillTraining, source: Run, teacher: Run, pruned: dict[str, Any]) -> dict[str, Any]:
        """Also the student's times, and its share of clips with a conditioning frame, where the config names none."""
        if source.stage != config.stage:  # a distilled run may have chosen a grid of its own
            check_shared(TIMES, source, teacher)
        student, standard = source.denoiser.config, DenoiserConfig()
        names = (*TIMES, "image_probability")
        inherited = {key: getattr(student, key) for key in names if getattr(config, key) == getattr(standard, key)}
        check_base_is_teacher(config, source, teacher)
        inherited["few_step_lora"] = few_step_lora(config, teacher)
        table = source.denoiser.sampling.reuse
        if not config.reuse and is_trainable(table):
            inherited["reuse"] = table
        return super().completions(config, source, teacher, pruned) | inherited

    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        if self.config.lora.rank:
            check_named(self.config.init_from)
        return super().train_batches(mesh)

    def init(self, rng: Rng) -> Params:
        params = super().init(rng)
        critics = CRITICS[self.config.objective.method]
        if "critic" in critics:
            params["critic"] = self.teacher.init(named_key(rng, "teacher"))
        for part, lora in adapters_of(self.config).items():
            params[part] = init_adapter(lora, named_key(rng, part), params["teacher"])
        if isinstance(self.objective, KnowledgeObjective):
            last = self.denoiser.map_shapes[-1]
            maps = (jnp.zeros(last.shape, last.dtype),)
            params["projectors"] = init(self.objective.projectors, named_key(rng, "projectors"), maps)
        if "discriminator" in critics:
            discriminator = self.objective.discriminator
            features = discriminator.features(nn.unbox(params["teacher"]), *self.denoiser.zero_inputs())
            head_rng, grid = named_key(rng, "discriminator"), self.denoiser.latent_shape[:3]
            params["discriminator"] = discriminator.heads.init(head_rng, features, grid)["params"]
        return params

    @property
    def frozen(self) -> frozenset[str]:
        return super().frozen | ({"few_step"} if self.config.objective.method == "kdmd" else set())

    def ema_params(self, params: Params) -> Params:
        """The student's or its adapter's, beside the teacher that it is evaluated against."""
        student = {"adapter": params[self.student]} if self.config.lora.rank else super().ema_params(params)
        return {**student, "teacher": {}}

    def _averaged(self, params: Params) -> Params:
        """The student's network in the averaged parameters."""
        lora = self.config.lora
        return switched_on(params["teacher"], params["adapter"], lora.scale) if lora.rank else params

    def pretrained(self, target: Params) -> Params:
        """Also the critic, which starts as the teacher (arXiv 2311.18828), and heads that start from its blocks."""
        whole = {part: tree for part, tree in target.items() if part not in adapters_of(self.config)}
        params = super().pretrained(whole)
        if "critic" in whole and self.teacher_run:
            params["critic"] = self.teacher_run.params(target["critic"])
        if "few_step" in target and self.config.few_step:
            params["few_step"] = few_step_adapter(self.config, target["teacher"])
        if "discriminator" in target and self.teacher_run and self.config.head_start == "teacher":
            start = jax.jit(
                self._started_heads, out_shardings=jax.tree.map(lambda x: x.sharding, target["discriminator"])
            )
            params["discriminator"] = start(jax.random.key(self.config.seed), params["teacher"])
        return params

    def _started_heads(self, rng: Rng, teacher: Params) -> Params:
        return self.objective.discriminator.started(nn.unbox(self.init(rng)["discriminator"]), teacher)

    def loss(self, params: Params, batch: Batch, rng: Rng, trained: Trained = "all") -> tuple[Scalar, Metrics]:
        """The loss of the generator, its opponent or both."""
        rate, empty = self.config.caption_dropout, self.empty_caption
        text, mask = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate, empty)
        clips = self._clips(batch | {"text": text, "text_mask": mask}, named_key(rng, "images"))
        times = self._times(clips.latents)
        grid = time_grid(self.config.sampling_steps, **times)
        params = with_adapters(self.config, params)
        return self.objective(params, clips, grid, rng, shift=times["shift"], trained=trained)

    def _clips(self, batch: Batch, rng: Rng) -> CaptionedLatents:
        """The batch, some of its clips with a conditioning frame, unless a causal student makes all frames."""
        conditioned, share = None, self.config.image_probability
        if share and not self.config.model.stream_chunk:
            conditioned = jax.random.bernoulli(rng, share, batch["latents"].shape[:1]) & has_later_frames(batch)
        return CaptionedLatents(
            latents=batch["latents"],
            text=batch["text"],
            text_mask=batch["text_mask"],
            mask=batch.get("latent_mask"),
            empty=self.empty_caption,
            conditioned=conditioned,
        )

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses of the generator alone, of its opponent alone, and of both."""
        return tuple(functools.partial(self.loss, trained=trained) for trained in self._trained)

    @property
    def _trained(self) -> tuple[Trained, ...]:
        optimizer = self.config.optimizer
        trained: list[Trained] = []
        if optimizer.generator_alone:
            trained.append("generator")
        if optimizer.generator_every > 1:
            trained.append("opponent")
        return (*trained, "all")

    def loss_index(self, step: jax.Array) -> jax.Array:
        optimizer, names = self.config.optimizer, self._trained
        index = jnp.full((), len(names) - 1)
        if "opponent" in names:
            index = jnp.where(optimizer.updates_generator(step), index, names.index("opponent"))
        return jnp.where(step < optimizer.generator_alone, 0, index)

    def _times(self, latents: jax.Array) -> dict[str, Any]:
        return self.denoiser.sampled_times(math.prod(latents.shape[1:4]))

    @property
    def sampling(self) -> dict[str, Any]:
        """The steps that the student is trained for, without guidance."""
        own = self.denoiser.sampling
        return super().sampling | {
            "steps": own.steps,
            "guidance": own.guidance,
            "solver": own.solver,
            "times": (),
            "reuse": own.reuse,
            "image_noise": 0.0,  # its conditioning frames are clean
        }

    def sample_config(self) -> SampleConfig:
        """The steps that the student is trained for, without guidance."""
        sampling, times = self.denoiser.sampling, self.denoiser.sampled_times(self.denoiser.tokens)
        own = SampleConfig(sampling.steps, sampling.guidance, solver=sampling.solver, reuse=sampling.reuse)
        return own.with_times(**times)

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Samples for held-out captions, from the same noise every time, beside the guided teacher's.

        `loss` is the distance of both in colour and in log motion and spread, and the error `kd` of the velocity at the
        student's states.
        """
        clips = self._clips(batch, named_key(rng, "images"))
        grid = time_grid(self.config.sampling_steps, **self._times(clips.latents))
        noise = jax.random.normal(named_key(rng, "noise"), clips.latents.shape)
        student = self._averaged(params)
        samples = self.objective.samples(student, clips, noise, grid)
        reference = self.objective.teacher_samples(params["teacher"], clips, noise, grid)
        metrics = collapse_metrics(samples, reference, clips.mask)
        log_ratios = jnp.abs(jnp.log(metrics["motion"])) + jnp.abs(jnp.log(metrics["spread"]))
        kd = self.objective.kd_error(student, params["teacher"], clips, grid, named_key(rng, "states"))
        return {"loss": metrics["colour"] + log_ratios + kd, "kd": kd, **metrics}

    def collapse_reason(self, metrics: Mapping[str, float]) -> str | None:
        return collapse_reason(metrics, self.config.watch)

    def cost(self, devices: int | None = None) -> Cost:
        """FLOPs of the gradient itself, as parts of it need no backward pass; remat's repeated work is left out.

        A mean over the steps from one update of the generator to the next.
        """
        config = self.config
        models = {key: dataclasses.replace(getattr(config, key), remat="none") for key in ("model", "teacher_model")}
        stage = DistillStage(dataclasses.replace(config, **models))

        frozen = {part: shapes for part, shapes in self.shapes.items() if part in self.frozen}
        parts = {part: shapes for part, shapes in self.shapes.items() if part not in frozen}
        inputs = (frozen, self.abstract_batch(devices), jax.random.key(0))

        def flops(trained: Trained) -> int:
            def loss(parts: Params, frozen: Params, batch: Batch, rng: Rng) -> Scalar:
                return stage.loss(parts | frozen, batch, rng, trained)[0]

            return sum(count_flops(jax.grad(loss), parts, *inputs).values())

        every = config.optimizer.generator_every
        total = flops("all") + (every - 1) * flops("opponent") if every > 1 else flops("all")
        return Cost(self.batch_tokens(devices), total // every)

    def description(self) -> dict[str, Any]:
        return {**super().description(), "sampling_steps": self.config.sampling_steps}
