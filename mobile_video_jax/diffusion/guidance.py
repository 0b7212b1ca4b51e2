"""Classifier-free guidance and the caption dropout that makes it possible (arXiv 2207.12598)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Latents, Rng, TextMask, TextStates, Times
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import GuidanceScale, Share
from mobile_video_jax.diffusion.path import Velocity, predict_x0

# A network with its parameters bound: (x_t, t, text, text_mask) -> velocity.
ConditionalVelocity = Callable[[Latents, Times, TextStates, TextMask], Latents]
# State of the empty caption's one token, for models that were trained with the text encoder's own.
EmptyCaption = Float[np.ndarray, "e"]


@dataclasses.dataclass(frozen=True)
class Guidance(Config):
    """Guidance in an interval of times (arXiv 2404.07724). Raises UserError for a setting out of range."""

    scale: GuidanceScale  # strength; 1 is none
    low: Share = 0.0  # least time (0 is data) at which guidance acts
    high: Share = 1.0  # greatest time (1 is noise) at which guidance acts
    rescale: Share = 0.0  # share by which x0 returns to the conditional one's deviation (arXiv 2305.08891)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise UserError(f"guidance acts from low to high times, not from {self.low} to {self.high}")

    def acts(self, t: Times) -> Bool[Array, "b"]:
        """True for clips whose times are in the closed interval [low, high]: the default includes t = 0 and 1."""
        return (self.low <= t) & (t <= self.high)


def null_text(text: TextStates, mask: TextMask, empty: EmptyCaption | None = None) -> tuple[TextStates, TextMask]:
    """States and mask of "no caption": one token, whose state is `empty`, or zero without it."""
    states = jnp.zeros_like(text)
    if empty is not None:
        states = states.at[:, 0].set(jnp.asarray(empty, states.dtype))
    return states, jnp.zeros_like(mask).at[:, 0].set(True)


def drop_captions(
    rng: Rng, text: TextStates, mask: TextMask, rate: float, empty: EmptyCaption | None = None
) -> tuple[TextStates, TextMask]:
    """Replaces each clip's caption by the null text with probability `rate`."""
    drop = jax.random.bernoulli(rng, rate, mask.shape[:1])
    null_states, null_mask = null_text(text, mask, empty)
    return jnp.where(drop[:, None, None], null_states, text), jnp.where(drop[:, None], null_mask, mask)


def guided(
    network: ConditionalVelocity,
    text: TextStates,
    mask: TextMask,
    guidance: Guidance,
    negative: tuple[TextStates, TextMask] | None = None,
    weak: ConditionalVelocity | None = None,
) -> Velocity:
    """v_null + scale (v_text - v_null), both in one doubled batch; outside the interval or at scale 1, v_text alone.

    The null pass is skipped where no clip needs it; a sampler's clips share their time. `negative` holds the states and
    mask of a negative prompt, which replaces the null text. A `weak` network, if there is one, makes the null pass.
    """

    def conditional(x_t: Latents, t: Times) -> Latents:
        return network(x_t, t, text, mask)

    if guidance.scale == 1.0:
        return conditional
    null_states, null_mask = negative or null_text(text, mask)
    both_text, both_mask = jnp.concatenate([text, null_states]), jnp.concatenate([mask, null_mask])

    def velocity(x_t: Latents, t: Times) -> Latents:
        if weak:
            null_velocity = weak(x_t, t, null_states, null_mask)
            return _extrapolate(guidance, x_t, t, conditional(x_t, t), null_velocity)
        both = network(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both_text, both_mask)
        conditional_velocity, null_velocity = jnp.split(both, 2)
        return _extrapolate(guidance, x_t, t, conditional_velocity, null_velocity)

    if (guidance.low, guidance.high) == (0.0, 1.0):
        return velocity
    return lambda x_t, t: jax.lax.cond(jnp.any(guidance.acts(t)), velocity, conditional, x_t, t)


def _extrapolate(guidance: Guidance, x_t: Latents, t: Times, conditional: Latents, unconditional: Latents) -> Latents:
    velocity = unconditional + guidance.scale * (conditional - unconditional)
    if guidance.rescale:
        velocity = _rescale(guidance.rescale, x_t, t, velocity, conditional)
    return jnp.where(guidance.acts(t)[:, None, None, None, None], velocity, conditional)


def _rescale(phi: float, x_t: Latents, t: Times, velocity: Latents, conditional: Latents) -> Latents:
    """Velocity to the x0 prediction phi x0 std(x0_text) / std(x0) + (1 - phi) x0 (arXiv 2305.08891, eq. 15 and 16).

    Rescales the x0 prediction, whose deviation is a clip's contrast, as LTX-2 does (pipeline_ltx2 of diffusers).
    Rescaling the velocity would leave a part of the noise in x0.
    """
    t = jnp.maximum(t, 1e-3)  # At t = 0 both x0 are x_t, and the result would be 0 / 0.
    x0, x0_text = predict_x0(x_t, velocity, t), predict_x0(x_t, conditional, t)
    clip = (1, 2, 3, 4)
    ratio = jnp.std(x0_text, clip, keepdims=True) / jnp.std(x0, clip, keepdims=True)
    return velocity + phi * (1 - ratio) * x0 / t[:, None, None, None, None]
