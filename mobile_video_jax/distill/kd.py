"""Distillation loss: relative squared error of a student's velocity and hidden features against its teacher's."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import LatentMask, Latents
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.dit.features import Features

# Velocities [b lt lh lw c] and features [l b n d] of l blocks.
Outputs = tuple[Latents, Features]

EPS = 1e-6  # keeps the error relative to a teacher of zeros finite


def kd_loss(
    student: Outputs,
    teacher: Outputs,
    blocks: Float[Array, "l *b"],
    weights: KdWeights,
    mask: LatentMask | None = None,
) -> Float[Array, "b"]:
    """Loss of each clip, w_v |v_S - v_T|^2 / |v_T|^2 + w_f mean_l |h_S^l - h_T^l|^2 / |h_T^l|^2.

    Norms are over a clip's values where `mask` is True. The mean is over blocks l with `blocks` 1 (0: pruned), for all
    clips or per clip. Teacher features are those of the matched blocks (block_map.py). The feature term is that of
    FitNets (arXiv 1412.6550), without a projection as both widths are equal.
    """
    velocity, features = kd_terms(student, teacher, blocks, weights, mask)
    return velocity + features


def kd_terms(
    student: Outputs,
    teacher: Outputs,
    blocks: Float[Array, "l *b"],
    weights: KdWeights,
    mask: LatentMask | None = None,
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """The velocity term and the feature term of kd_loss, per clip."""
    velocity, features = kd_residual(student, teacher, blocks, weights, mask)
    return jnp.sum(velocity**2, axis=(1, 2, 3, 4)), jnp.sum(features**2, axis=(0, 2, 3))


def kd_residual(
    student: Outputs,
    teacher: Outputs,
    blocks: Float[Array, "l *b"],
    weights: KdWeights,
    mask: LatentMask | None = None,
) -> Outputs:
    """Scaled differences whose squares sum to kd_loss, in float32."""
    (velocity, features), (teacher_velocity, teacher_features) = student, teacher
    if mask is None:
        mask = jnp.ones(velocity.shape[:4], bool)
    clip_weights = jnp.full(velocity.shape[0], weights.velocity)
    active = jnp.broadcast_to(blocks.reshape(blocks.shape[0], -1), features.shape[:2])
    block_weights = weights.features * active / jnp.sum(active, axis=0)
    token_mask = mask.reshape(1, mask.shape[0], -1, 1)
    return (
        _relative(velocity, teacher_velocity, mask[..., None], clip_weights),
        _relative(features, teacher_features, token_mask, block_weights),
    )


def relative_errors(student: Latents, teacher: Latents, mask: LatentMask | None = None) -> Float[Array, "b"]:
    """|v_S - v_T|^2 / |v_T|^2 of each clip, over values where `mask` is True."""
    mask = jnp.ones(student.shape[:4], bool) if mask is None else mask
    return jnp.sum(_relative(student, teacher, mask[..., None], jnp.ones(student.shape[0])) ** 2, axis=(1, 2, 3, 4))


def _relative(
    student: Float[Array, "*b"], teacher: Float[Array, "*b"], mask: Bool[Array, "..."], weights: Float[Array, "..."]
) -> Array:
    """sqrt(weight) (student - teacher) / |teacher|, norms over the axes that `weights` does not have."""
    axes = tuple(range(weights.ndim, teacher.ndim))
    teacher = teacher.astype(jnp.float32)
    energy = jnp.sum(jnp.where(mask, teacher, 0) ** 2, axis=axes) + EPS
    scale = jnp.expand_dims(jnp.sqrt(weights / energy), axes)
    return jnp.where(mask, scale * (student.astype(jnp.float32) - teacher), 0)
