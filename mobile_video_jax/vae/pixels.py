"""Conversion between stored pixels (bytes) and network inputs in [-1, 1]."""

import jax.numpy as jnp
from jaxtyping import Array, UInt8

from mobile_video_jax.core.arrays import Video


def to_signed(pixels: UInt8[Array, "b t h w 3"]) -> Video:
    """Maps bytes 0..255 to float32 in [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def to_bytes(video: Video) -> UInt8[Array, "b t h w 3"]:
    """Maps [-1, 1] back to bytes, rounding and clipping."""
    return jnp.clip(jnp.round((video + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
