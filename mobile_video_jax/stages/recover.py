"""Recovery: a pruned transformer learns again from data and from the transformer that it was pruned from."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.distill.block_map import matched_blocks
from mobile_video_jax.distill.kd import kd_terms
from mobile_video_jax.models.networks import as_transformer
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.lineage import block_map_to
from mobile_video_jax.stages.student import TIMES, StudentStage, check_shared
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params


class RecoverStage(StudentStage):
    """Flow matching, and the distillation loss against the frozen teacher, on the same noisy clips.

    L = w L_FM + L_KD (distill/kd.py).
    """

    config: RecoverTraining
    student = "student"

    def __init__(self, config: RecoverTraining):
        super().__init__(config)
        self.block_map = matched_blocks(config.transformer, as_transformer(config.teacher_model), config.block_map)

    @classmethod
    def completions(cls, config: RecoverTraining, source: Run, teacher: Run, pruned: dict[str, Any]) -> dict[str, Any]:
        """Also the times, which both have, and the teacher's blocks that the student's were, if it descends from it."""
        check_shared(TIMES, source, teacher)
        student = source.denoiser.config
        times = {key: getattr(student, key) for key in TIMES}
        block_map = config.block_map or block_map_to(source, teacher)
        return super().completions(config, source, teacher, pruned) | times | {"block_map": block_map}

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        cfg, noisy = self.config, self.training_batch(batch, rng)
        if not cfg.kd.any:
            velocity = self.denoiser.velocity(params["student"], *noisy.inputs)
            return cfg.flow_weight * jnp.mean(noisy.errors(velocity)), {}
        student = self.denoiser.velocity_and_features(params["student"], *noisy.inputs)
        velocity, features = jax.lax.stop_gradient(self.teacher.velocity_and_features(params["teacher"], *noisy.inputs))
        teacher = velocity, features[jnp.array(self.block_map)]
        velocity_loss, feature_loss = kd_terms(student, teacher, jnp.ones(len(self.block_map)), cfg.kd, noisy.mask)
        flow_loss = noisy.errors(student[0])
        if cfg.timestep_aware:
            velocity_loss = velocity_loss * scale_to(flow_loss, velocity_loss)
        terms = {"flow_loss": flow_loss, "velocity_kd": velocity_loss, "feature_kd": feature_loss}
        loss = jnp.mean(cfg.flow_weight * flow_loss + velocity_loss + feature_loss)
        return loss, {name: jnp.mean(value) for name, value in terms.items()}

    def cost(self, devices: int | None = None) -> Cost:
        """The student's forward and backward pass and the teacher's forward pass."""
        plain = DitStage(self.config).cost(devices)
        if not self.config.kd.any:
            return plain
        batch = self.abstract_batch(devices)
        inputs = (batch["latents"], jnp.zeros(batch["latents"].shape[0]), batch["text"], batch["text_mask"])
        flops = count_flops(self.teacher.velocity, self.shapes["teacher"], *inputs)
        return Cost(plain.tokens, plain.flops + sum(flops.values()))

    def description(self) -> dict[str, Any]:
        return {**super().description(), "block_map": list(self.block_map)}


def scale_to(target: Float[Array, "b"], loss: Float[Array, "b"]) -> Float[Array, "b"]:
    """The factors that bring each clip's `loss` to the size of its `target`, as constants.

    Distillation and flow-matching losses depend on the time in ways of their own; scaled, neither drowns the other at
    any of them: the timestep-aware scaling of SnapGen (arXiv 2412.09619), without its weights.
    """
    return jax.lax.stop_gradient(target / jnp.maximum(loss, 1e-6))
