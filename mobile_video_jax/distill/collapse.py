"""Collapse monitor: a student's samples beside its guided teacher's, and the limits at which training stops."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents, Scalar
from mobile_video_jax.distill.config import CollapseConfig

EPS = 1e-6  # makes the ratio 1 for images, which do not move


def collapse_metrics(samples: Latents, reference: Latents, mask: LatentMask | None = None) -> dict[str, Scalar]:
    """Compares samples with others of the same captions, over positions where `mask` is True.

    `motion` is the ratio of their mean |x[t+1] - x[t]|, `spread` that of their standard deviations about the channels'
    means. `colour` is the squared Fréchet distance between the channels as independent Gaussians, the mean of
    (m - m_ref)^2 + (s - s_ref)^2, over the reference's variance.
    """
    mask = jnp.ones(reference.shape[:4], bool) if mask is None else mask
    mean, std = _channel_moments(samples, mask)
    reference_mean, reference_std = _channel_moments(reference, mask)
    variance = jnp.mean(reference_std**2) + EPS
    return {
        "motion": (_motion(samples, mask) + EPS) / (_motion(reference, mask) + EPS),
        "spread": jnp.sqrt(jnp.mean(std**2) / variance),
        "colour": jnp.mean((mean - reference_mean) ** 2 + (std - reference_std) ** 2) / variance,
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
            return f"the {name} of samples is {ratio:.3g} times that of the teacher's"
    if limits.colour and metrics["eval_colour"] > limits.colour:
        return f"the colour of samples is {metrics['eval_colour']:.3g} variances from that of the teacher's"
    margin = metrics.get("real_logit", 0.0) - metrics.get("fake_logit", 0.0)
    if limits.margin and margin > limits.margin:
        return f"the discriminator tells real from fake clips by a margin of {margin:.3g}, and teaches no more"
    return None
