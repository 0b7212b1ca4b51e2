"""Classifier-free guidance and the caption dropout that makes it possible (arXiv 2207.12598)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, TextMask, TextStates, Times
from mobile_video_jax.diffusion.samplers import Velocity

# A model with its parameters bound: (x_t, t, text, text_mask) -> velocity.
Denoiser = Callable[[Latents, Times, TextStates, TextMask], Latents]


def null_text(text: TextStates, mask: TextMask) -> tuple[TextStates, TextMask]:
    """The condition "no caption": zero states, of which only the first takes part."""
    return jnp.zeros_like(text), jnp.zeros_like(mask).at[:, 0].set(True)


def drop_captions(rng: Rng, text: TextStates, mask: TextMask, rate: float) -> tuple[TextStates, TextMask]:
    """Replaces each clip's caption by the null text with probability `rate`."""
    drop = jax.random.bernoulli(rng, rate, mask.shape[:1])
    null_states, null_mask = null_text(text, mask)
    return jnp.where(drop[:, None, None], null_states, text), jnp.where(drop[:, None], null_mask, mask)


def guided(denoiser: Denoiser, text: TextStates, mask: TextMask, scale: float) -> Velocity:
    """v_null + scale (v_text - v_null), both in one doubled batch; at scale 1 the null pass is left out."""
    if scale == 1.0:
        return lambda x_t, t: denoiser(x_t, t, text, mask)
    null_states, null_mask = null_text(text, mask)
    both_text, both_mask = jnp.concatenate([text, null_states]), jnp.concatenate([mask, null_mask])

    def velocity(x_t: Latents, t: Times) -> Latents:
        both = denoiser(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both_text, both_mask)
        conditional, unconditional = jnp.split(both, 2)
        return unconditional + scale * (conditional - unconditional)

    return velocity
