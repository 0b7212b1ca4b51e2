"""Collapse monitor: metrics of a student's samples beside real clips, and the limits at which training stops."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents, Scalar
from mobile_video_jax.distill.config import CollapseConfig

EPS = 1e-6  # makes the ratio 1 for images, which do not move


def collapse_metrics(samples: Latents, real: Latents, mask: LatentMask | None = None) -> dict[str, Scalar]:
    """Compares samples with real clips of the same captions, over positions where `mask` is True.

    `motion` is the ratio of their mean |x[t+1] - x[t]|, `spread` that of their standard deviations about the channels'
    means. `colour` is the squared Fréchet distance between the channels as independent Gaussians, the mean of
    (m - m_real)^2 + (s - s_real)^2, over the real variance.
    """
    mask = jnp.ones(real.shape[:4], bool) if mask is None else mask
    mean, std = _channel_moments(samples, mask)
    real_mean, real_std = _channel_moments(real, mask)
    real_variance = jnp.mean(real_std**2) + EPS
    return {
        "motion": (_motion(samples, mask) + EPS) / (_motion(real, mask) + EPS),
        "spread": jnp.sqrt(jnp.mean(std**2) / real_variance),
        "colour": jnp.mean((mean - real_mean) ** 2 + (std - real_std) ** 2) / real_variance,
    }


def _motion(x: Latents, mask: LatentMask) -> Scalar:
    pairs = jnp.broadcast_to((mask[:, 1:] & mask[:, :-1])[..., None], x[:, 1:].shape)
    return jnp.sum(jnp.abs(jnp.diff(x, axis=1)), where=pairs) / jnp.maximum(jnp.sum(pairs), 1)


def _channel_moments(x: Latents, mask: LatentMask) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    where = mask[..., None]
    return jnp.mean(x, axis=(0, 1, 2, 3), where=where), jnp.std(x, axis=(0, 1, 2, 3), where=where)


def collapse_reason(metrics: Mapping[str, float], limits: CollapseConfig) -> str | None:
    """Message for the first exceeded limit among one log line's metrics (eval_motion, real_logit ...); None if none."""
    for name in ("motion", "spread"):
        ratio, factor = metrics[f"eval_{name}"], getattr(limits, name)
        if factor and not 1 / factor <= ratio <= factor:
            return f"the {name} of samples is {ratio:.3g} times that of real clips"
    if limits.colour and metrics["eval_colour"] > limits.colour:
        return f"the colour of samples is {metrics['eval_colour']:.3g} variances from that of real clips"
    margin = metrics.get("real_logit", 0.0) - metrics.get("fake_logit", 0.0)
    if limits.margin and margin > limits.margin:
        return f"the discriminator tells real from fake clips by a margin of {margin:.3g}, and teaches no more"
    return None
