"""Signs that a student's samples collapse: measures of them beside real clips, and the limits of these."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents, Scalar

SMALLEST = 1e-6  # of images, which do not move, the ratio is then 1


@dataclasses.dataclass(frozen=True)
class CollapseConfig:
    """Where a run is stopped; 0 switches a limit off, and all may be changed when a run goes on.

    `motion` and `spread` are factors: more than so many times, or less than one in so many, of real clips. `colour` is
    a distance, in variances of the latents, and `margin` one of logits, of which the hinge losses ask for 2. In a tiny
    world good runs stay within 1.3, 1.1 and 0.05; one that a discriminator alone taught went to 2.5, 1.6 and 0.6.
    """

    motion: float = 3.0
    spread: float = 1.5
    colour: float = 0.3
    margin: float = 20.0


def collapse_metrics(samples: Latents, real: Latents, places: LatentMask | None = None) -> dict[str, Scalar]:
    """Samples against real clips of the same captions.

    `motion` is the ratio of their mean |x[t+1] - x[t]|, `spread` that of their standard deviations about the channels'
    means. `colour` is the squared Fréchet distance between the channels as independent Gaussians, the mean of
    (m - m_real)^2 + (s - s_real)^2, over the real variance.
    """
    places = jnp.ones(real.shape[:4], bool) if places is None else places
    moves, real_moves = (_motion(x, places) for x in (samples, real))
    (means, deviations), (real_means, real_deviations) = (_channels(x, places) for x in (samples, real))
    power = jnp.mean(real_deviations**2) + SMALLEST
    return {
        "motion": (moves + SMALLEST) / (real_moves + SMALLEST),
        "spread": jnp.sqrt(jnp.mean(deviations**2) / power),
        "colour": jnp.mean((means - real_means) ** 2 + (deviations - real_deviations) ** 2) / power,
    }


def _motion(x: Latents, places: LatentMask) -> Scalar:
    pairs = jnp.broadcast_to((places[:, 1:] & places[:, :-1])[..., None], x[:, 1:].shape)
    return jnp.sum(jnp.abs(jnp.diff(x, axis=1)), where=pairs) / jnp.maximum(jnp.sum(pairs), 1)


def _channels(x: Latents, places: LatentMask) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    where = places[..., None]
    return jnp.mean(x, axis=(0, 1, 2, 3), where=where), jnp.std(x, axis=(0, 1, 2, 3), where=where)


def collapse_reason(measures: Mapping[str, float], limits: CollapseConfig) -> str | None:
    """What is wrong with the measures of one log line, eval_motion, real_logit and so on; None if nothing is."""
    for name in ("motion", "spread"):
        ratio, factor = measures[f"eval_{name}"], getattr(limits, name)
        if factor and not 1 / factor <= ratio <= factor:
            return f"the {name} of samples is {ratio:.3g} times that of real clips"
    if limits.colour and measures["eval_colour"] > limits.colour:
        return f"the colour of samples is {measures['eval_colour']:.3g} variances from that of real clips"
    margin = measures.get("real_logit", 0.0) - measures.get("fake_logit", 0.0)
    if limits.margin and margin > limits.margin:
        return f"the discriminator tells real from fake clips by a margin of {margin:.3g}, and teaches no more"
    return None
