"""Recovery: a network learns from data and from a teacher, as a pruned transformer from the one it was pruned from."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import FrameTimes, Latents, Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.distill.block_map import matched_blocks
from mobile_video_jax.distill.kd import kd_terms, relative_errors
from mobile_video_jax.distill.projectors import Projectors, matched_maps, projected_errors
from mobile_video_jax.distill.timestep_scaling import Losses, balanced, task_share
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.models.run import Run
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.lineage import block_map_to
from mobile_video_jax.stages.noisy_batch import NoisyBatch
from mobile_video_jax.stages.student import TIMES, StudentStage, check_shared
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params


class RecoverStage(StudentStage):
    """Flow matching, and the distillation loss against the frozen teacher, on the same noisy clips.

    L = w L_FM + L_KD (distill/kd.py), or with `balance` S(L_FM, L_velocity) + S(L_FM, L_features) of
    distill/timestep_scaling.py. Networks without equal blocks, or of two widths, are compared by their feature maps,
    through projectors.
    """

    config: RecoverTraining
    student = "student"

    def __init__(self, config: RecoverTraining):
        super().__init__(config)
        have_features = bool(self.denoiser.family.features and self.teacher.family.features)
        self.has_blocks = have_features and config.transformer.width == as_transformer(config.teacher_model).width
        self.block_map: tuple[int, ...] = ()
        if self.has_blocks:
            self.block_map = matched_blocks(config.transformer, as_transformer(config.teacher_model), config.block_map)
        elif config.block_map:
            raise UserError("block_map compares equal blocks of one width, which these networks have not: leave it out")
        self.projectors = Projectors(self.teacher.map_shapes[-1].shape[-1]) if self.is_projected else None

    @property
    def is_projected(self) -> bool:
        """True where features are compared through projectors."""
        return not self.has_blocks and self.config.kd.features > 0

    def init(self, rng: Rng) -> Params:
        params = super().init(rng)
        if self.projectors:
            maps = [jnp.zeros(x.shape, x.dtype) for x in self.denoiser.map_shapes]
            params["projectors"] = init(self.projectors, named_key(rng, "projectors"), maps)
        return params

    @classmethod
    def completions(cls, config: RecoverTraining, source: Run, teacher: Run, pruned: dict[str, Any]) -> dict[str, Any]:
        """Also the times, which both have, and the teacher's blocks that the student's were, if it descends from it."""
        check_shared(TIMES, source, teacher)
        student = source.denoiser.config
        times = {key: getattr(student, key) for key in TIMES}
        block_map = config.block_map
        if not block_map and source.denoiser.family.features:
            block_map = block_map_to(source, teacher)
        return super().completions(config, source, teacher, pruned) | times | {"block_map": block_map}

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        cfg, noisy = self.config, self.training_batch(batch, rng)
        if not cfg.kd.any:
            velocity = self.denoiser.velocity(params["student"], *noisy.inputs)
            return cfg.flow_weight * jnp.mean(noisy.errors(velocity)), {}
        velocity, velocity_loss, feature_loss = self._distilled(params, noisy)
        flow_loss = noisy.errors(velocity)
        if cfg.timestep_aware:
            velocity_loss = velocity_loss * scale_to(flow_loss, velocity_loss)
        terms = {"flow_loss": flow_loss, "velocity_kd": velocity_loss, "feature_kd": feature_loss}
        loss = jnp.mean(self._weighed(flow_loss, velocity_loss, feature_loss, noisy.inputs[1]))
        return loss, {name: jnp.mean(value) for name, value in terms.items()}

    def _distilled(self, params: Params, noisy: NoisyBatch) -> tuple[Latents, Losses, Losses]:
        """The student's velocity, and the losses of velocity and features of each clip."""
        kd, mask = self.config.kd, noisy.mask
        if self.has_blocks:
            student = self.denoiser.velocity_and_features(params["student"], *noisy.inputs)
            taught = jax.lax.stop_gradient(self.teacher.velocity_and_features(params["teacher"], *noisy.inputs))
            teacher = taught[0], taught[1][jnp.array(self.block_map)]
            return student[0], *kd_terms(student, teacher, jnp.ones(len(self.block_map)), kd, mask)
        velocity, maps = self.denoiser.velocity_and_maps(params["student"], *noisy.inputs)
        target, teacher_maps = jax.lax.stop_gradient(self.teacher.velocity_and_maps(params["teacher"], *noisy.inputs))
        feature_loss = jnp.zeros(velocity.shape[0])
        if self.projectors:
            projected = apply(self.projectors, params["projectors"], maps)
            feature_loss = kd.features * projected_errors(projected, matched_maps(len(maps), teacher_maps), mask)
        return velocity, kd.velocity * relative_errors(velocity, target, mask), feature_loss

    def _weighed(self, flow: Losses, velocity: Losses, features: Losses, t: FrameTimes) -> Losses:
        """The loss of each clip out of its terms; those of weight 0 are left out of a balance."""
        cfg = self.config
        if cfg.balance == "sum":
            return cfg.flow_weight * flow + velocity + features
        share: Losses = task_share(t) if cfg.balance == "timestep" else jnp.full(flow.shape, 0.5)
        terms = [term for term, weight in ((velocity, cfg.kd.velocity), (features, cfg.kd.features)) if weight]
        return sum((balanced(flow, term, share) for term in terms), jnp.zeros_like(flow))

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
