"""Perceptual distance of clips: the distance of their VGG features."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Scalar, Video
from mobile_video_jax.nn.module import apply
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.vae.losses.vgg import Features, Vgg

Map = Float[Array, "n h w c"]


def perceptual_loss(features_x: Features, features_y: Features) -> Scalar:
    """Squared distance of channel vectors scaled to length one, averaged over positions, then over stages.

    LPIPS (arXiv 1801.03924, eq. 1) without its learned channel weights, and with the mean over stages. Features are not
    negative, so the loss is in [0, 2].
    """
    stages = zip(features_x, features_y, strict=True)
    # Vectors of root mean square one: the mean over channels is the sum over them at length one.
    distances = [jnp.mean((_normalize(x) - _normalize(y)) ** 2) for x, y in stages]
    return jnp.mean(jnp.stack(distances))


def _normalize(x: Map) -> Map:
    return rms_normalize(x.astype(jnp.float32))


def perceptual_distance(vgg: Vgg, params: Any, video: Video, decoded: Video) -> Scalar:
    """Perceptual loss between two batches of clips [b t h w 3] in [-1, 1], frame by frame."""
    features = [apply(vgg, params, clips.reshape(-1, *clips.shape[2:])) for clips in (video, decoded)]
    return perceptual_loss(*features)
