"""Recovery: a pruned transformer learns again from data and from the transformer that it was cut out of."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops, count_parameters
from mobile_video_jax.distill.block_map import matched_blocks
from mobile_video_jax.distill.kd import kd_terms
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.nn.module import apply
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.teacher import check_latents, in_its_dtype
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params

# What launch.prune leaves beside the smaller model: which model it was cut out of, and from which of its blocks.
PRUNED = "pruned.json"


def read_pruned(run: Run) -> dict[str, Any]:
    """The content of PRUNED, empty for a run that was not pruned."""
    path = run.path / PRUNED
    record: dict[str, Any] = read_json(path) if path.exists() else {}
    return record


def from_pruned(config: RecoverTraining) -> RecoverTraining:
    """The config with what the run in `init_from` says; unchanged without one.

    Raises UserError where that run was not pruned and no teacher is named.
    """
    if not config.init_from:
        return config
    run = Run.open(config.init_from)
    student, pruned = run.denoiser.config, read_pruned(run)
    teacher = config.teacher or pruned.get("teacher")
    if not teacher:
        raise UserError(f"{run} was not pruned from another run: name one to learn from with --config.teacher=RUN")
    times = ("time_shift", "shift_follows_tokens", "time_terminal")
    taken = ("model", "compression", "text_encoder", "text_width", "text_tokens", *times)
    return dataclasses.replace(
        config,
        **{key: getattr(student, key) for key in taken},
        teacher=teacher,
        teacher_model=Run.open(teacher).denoiser.config.model,
        block_map=config.block_map or tuple(pruned.get("block_map", ())),
    )


class RecoverStage(DitStage):
    """Flow matching, and the distillation loss against the frozen teacher, on the same noisy clips.

    L = w L_FM + L_KD (distill/kd.py). Parameters are {"student", "teacher"}; a run leaves the student.
    """

    config: RecoverTraining

    def __init__(self, config: RecoverTraining):
        super().__init__(config)
        self.teacher = Denoiser(dataclasses.replace(config, model=config.teacher_model))
        self.block_map = matched_blocks(config.model, config.teacher_model, config.block_map)

    @property
    def sampling(self) -> dict[str, Any]:
        """The teacher's."""
        teacher = Run.open(self.config.teacher).denoiser if self.config.teacher else self.denoiser
        return dataclasses.asdict(teacher.sampling)

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def init(self, rng: Rng) -> Params:
        teacher = self.teacher.init(named_key(rng, "teacher"))
        return {"student": super().init(rng), "teacher": in_its_dtype(teacher, self.config.teacher_model.dtype)}

    def model(self, params: Params) -> Params:
        return params["student"]

    def given(self, target: Params) -> Params:
        """The student of `init_from` and its teacher; what no run is named for is drawn at random."""
        cfg = self.config
        runs = {"student": cfg.init_from, "teacher": cfg.teacher}
        return {part: Run.open(run).params(target[part]) for part, run in runs.items() if run and part in target}

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        cfg, asked = self.config, self.noised(batch, rng)
        if not cfg.kd.any:
            velocity = apply(self.denoiser.network, params["student"], *asked.inputs)
            return cfg.flow_weight * jnp.mean(asked.errors(velocity)), {}
        outputs = self.denoiser.velocity_and_features(params["student"], *asked.inputs)
        velocity, features = jax.lax.stop_gradient(self.teacher.velocity_and_features(params["teacher"], *asked.inputs))
        kept = jnp.ones(len(self.block_map))
        distilled, felt = kd_terms(outputs, (velocity, features[jnp.array(self.block_map)]), kept, cfg.kd, asked.counts)
        flow = asked.errors(outputs[0])
        if cfg.timestep_aware:
            distilled = distilled * same_size(flow, distilled)
        parts = {"flow_loss": flow, "velocity_kd": distilled, "feature_kd": felt}
        return jnp.mean(cfg.flow_weight * flow + distilled + felt), {k: jnp.mean(v) for k, v in parts.items()}

    def _checked_data(self) -> list[Path]:
        """The data folders. Also raises UserError where student or teacher were trained on other latents."""
        folders = super()._checked_data()
        check_latents((self.config.init_from, self.config.teacher), folders[0])
        return folders

    def cost(self, devices: int | None = None) -> Cost:
        """The student's forward and backward pass and the teacher's forward pass."""
        plain = DitStage(self.config).cost(devices)
        if not self.config.kd.any:
            return plain
        params = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))["teacher"]
        batch = self.abstract_batch(devices)
        inputs = (batch["latents"], jnp.zeros(batch["latents"].shape[0]), batch["text"], batch["text_mask"])
        flops = count_flops(self.teacher.velocity, params, *inputs)
        return Cost(plain.tokens, plain.flops + sum(flops.values()))

    def description(self) -> dict[str, Any]:
        teacher = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))["teacher"]
        return {
            **super().description(),
            "teacher_parameters": count_parameters(teacher),
            "block_map": list(self.block_map),
        }


def same_size(flow: jax.Array, distilled: jax.Array) -> jax.Array:
    """The factors that bring each clip's distillation loss to the size of its flow-matching loss, as constants.

    Both depend on the time in ways of their own; scaled like this neither drowns the other at any of them: the
    timestep-aware scaling of SnapGen (arXiv 2412.09619), without its weights.
    """
    return jax.lax.stop_gradient(flow / jnp.maximum(distilled, 1e-6))
