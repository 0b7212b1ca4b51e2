"""The distillation loss: how far a student's velocity and hidden features are from its teacher's."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import LatentMask, Latents
from mobile_video_jax.dit.features import Features

# Of velocities [b lt lh lw c] and of features [l b n d].
Outputs = tuple[Latents, Features]

EPS = 1e-6  # keeps the error relative to a teacher of zeros finite


@dataclasses.dataclass(frozen=True)
class KdWeights:
    """The weights of both errors."""

    velocity: float = 1.0
    features: float = 0.5

    @property
    def any(self) -> bool:
        """Whether a teacher is asked at all."""
        return self.velocity > 0 or self.features > 0


def kd_loss(
    student: Outputs,
    teacher: Outputs,
    blocks: Float[Array, "l *b"],
    weights: KdWeights,
    places: LatentMask | None = None,
) -> Float[Array, "b"]:
    """The loss of each clip, w_v |v_S - v_T|^2 / |v_T|^2 + w_f mean_l |h_S^l - h_T^l|^2 / |h_T^l|^2.

    Norms are over a clip's values at `places` that are no padding. The mean is over the `blocks` that are kept (1, not
    0); features are paired, so that the student's come first through block_map where its blocks are fewer. The feature
    term is that of FitNets (arXiv 1412.6550), without a projection as the width is the teacher's.
    """
    velocity, features = kd_terms(student, teacher, blocks, weights, places)
    return velocity + features


def kd_terms(
    student: Outputs,
    teacher: Outputs,
    blocks: Float[Array, "l *b"],
    weights: KdWeights,
    places: LatentMask | None = None,
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """The two terms of kd_loss: of velocities, and of features."""
    velocity, features = kd_residual(student, teacher, blocks, weights, places)
    return jnp.sum(velocity**2, axis=(1, 2, 3, 4)), jnp.sum(features**2, axis=(0, 2, 3))


def kd_residual(
    student: Outputs,
    teacher: Outputs,
    blocks: Float[Array, "l *b"],
    weights: KdWeights,
    places: LatentMask | None = None,
) -> Outputs:
    """The scaled differences whose squares sum to kd_loss, in float32."""
    velocity, features = (x.astype(jnp.float32) for x in teacher)
    if places is None:
        places = jnp.ones(velocity.shape[:4], bool)
    tokens = places.reshape(1, places.shape[0], -1, 1)
    kept = jnp.broadcast_to(blocks.reshape(blocks.shape[0], -1), features.shape[:2])
    shares = weights.features * kept / jnp.sum(kept, axis=0)
    return (
        _relative(student[0], velocity, places[..., None], jnp.full(velocity.shape[0], weights.velocity), 1),
        _relative(student[1], features, tokens, shares, 2),
    )


def _relative(
    student: Float[Array, "*b"], teacher: Float[Array, "*b"], places: Bool[Array, "..."], weights: Array, axes: int
) -> Array:
    """sqrt(weight) (student - teacher) / |teacher| over all but the first axes."""
    inner = tuple(range(axes, teacher.ndim))
    energy = jnp.sum(jnp.where(places, teacher, 0) ** 2, axis=inner) + EPS
    scale = jnp.expand_dims(jnp.sqrt(weights / energy), inner)
    return jnp.where(places, scale * (student.astype(jnp.float32) - teacher), 0)
