"""Distances of a transformer's blocks from a teacher's, each on the teacher's own input: all learn at once."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates, Tokens
from mobile_video_jax.dit.block import DitBlock, at_full_resolution
from mobile_video_jax.dit.features import Features
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.resolution import Downsampling
from mobile_video_jax.nn.module import apply

EPS = 1e-6  # keeps the distance from a block that changes nothing finite


def block_distances(
    dit: Dit,
    params: Any,
    features: Features,
    x_t: Latents,
    t: FrameTimes,
    text: TextStates,
    text_mask: TextMask,
    latent_mask: LatentMask | None = None,
) -> Float[Array, "l"]:
    """The L1 distance of each block's result from the teacher's `features`, as a share of the teacher's own change.

    Blocks, and stages of a lower resolution, get the teacher's residual stream. Values are compared, not attention
    weights (Attention Surgery, CVPR 2026). `dit` must neither scan its blocks nor compute them again.
    """
    weights = jnp.ones(features.shape[1:3]) if latent_mask is None else latent_mask.reshape(len(x_t), -1)
    weights = weights.astype(jnp.float32)[..., None]
    before: dict[int, Tokens] = {}
    distances: list[Float[Array, ""]] = []

    def size(change: Tokens) -> Float[Array, ""]:
        return jnp.sum(jnp.abs(change.astype(jnp.float32)) * weights)

    def observe(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, DitBlock | Downsampling):
            return call(*args, **kwargs)
        index = int(str(module.name).rpartition("_")[2])
        x, conditions, *rest = args
        if conditions.detail is None:  # all tokens: not within a stage of a lower resolution
            x = before.setdefault(index, features[index - 1] if index else x)
        out = call(x, conditions, *rest, **kwargs)
        if isinstance(module, DitBlock):
            result = at_full_resolution(out, conditions.detail, module.grid)
            own = features[index] - (features[index - 1] if index else before[0])
            distances.append(size(result - features[index]) / (size(own) + EPS))
        return out

    with nn.intercept_methods(observe):
        apply(dit, params, x_t, t, text, text_mask, latent_mask)
    return jnp.stack(distances)
