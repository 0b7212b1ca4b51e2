"""A decoder that learns from another's: its clips, and its features wherever both have a resolution."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import ImageFeatures, Latents, Scalar, Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.dense import Dense

FLOOR = 1e-6  # of a teacher's mean square, which errors of features are divided by

Map = Float[Array, "_ _ _ _ _"]  # [b t h w c] of a resolution and channels of its own
Features = dict[tuple[int, ...], Map]  # the last residual block's output at each resolution (frames, rows, columns)
Pair = tuple[Map, Map]  # a student's features, and the teacher's of the same resolution


def decode_with_features(
    vae: nn.Module, decoder: Any, latents: Latents, image: ImageFeatures | None = None
) -> tuple[Video, Features]:
    """The clip that a VAE's decoder of these parameters makes of latents, and its features."""
    is_block = lambda module, method: method == "__call__" and len(module.path) == 2 and "block_" in module.path[1]
    variables = {"params": {"decoder": decoder}}
    video, state = vae.apply(variables, latents, image, method="decode", capture_intermediates=is_block)
    blocks = state.get("intermediates", {}).get("decoder", {})
    features: Features = {}
    for name in sorted(blocks, key=_order):
        [output] = blocks[name]["__call__"]
        features[output.shape[1:4]] = output
    return video, features


def pairs(student: Features, teacher: Features) -> list[Pair]:
    """Features of the resolutions that both decoders have, from low to high. Raises UserError where they share none."""
    shared = sorted(student.keys() & teacher.keys())
    if not shared:
        raise UserError("the decoder and its teacher have no resolution in common: set --config.loss.features=0")
    return [(student[size], teacher[size]) for size in shared]


class Projectors(nn.Module):
    """Predicts the teacher's features by a linear layer for each resolution."""

    @nn.compact
    def __call__(self, pairs: list[Pair]) -> list[Map]:
        return [
            Dense(teacher.shape[-1], (None, None), name=f"level_{i}")(student.astype(jnp.float32))
            for i, (student, teacher) in enumerate(pairs)
        ]


def feature_error(predicted: list[Map], pairs: list[Pair]) -> Scalar:
    """Mean over resolutions of the squared error over the teacher's mean square, a constant."""
    errors = []
    for prediction, (_, teacher) in zip(predicted, pairs, strict=True):
        target = jax.lax.stop_gradient(teacher.astype(jnp.float32))
        errors.append(jnp.mean((prediction - target) ** 2) / (jnp.mean(target**2) + FLOOR))
    return jnp.mean(jnp.stack(errors))


def _order(name: str) -> tuple[int, int]:
    """Blocks' place in the order of computation, as all our decoders name them.

    Published ones count mid_block_J and up_I_block_J from low resolution to high, ours level_I_block_J from high.
    """
    numbers = [int(part) for part in name.split("_") if part.isdigit()]
    level = -numbers[0] if name.startswith("level") else numbers[0] if name.startswith("up") else -1
    return level, numbers[-1]
