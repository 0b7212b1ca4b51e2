"""Random keys: one root, folded with the step, then split by name."""

import zlib

import jax

from mobile_video_jax.core.arrays import Rng


def named_key(rng: Rng, name: str) -> Rng:
    """A key for one use, the same for the same name whatever other names are in use."""
    return jax.random.fold_in(rng, zlib.crc32(name.encode()))


def step_key(seed: int, step: int | jax.Array) -> Rng:
    """The key of one training step."""
    return jax.random.fold_in(jax.random.key(seed), step)
