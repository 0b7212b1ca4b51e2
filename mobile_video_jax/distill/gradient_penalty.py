"""Gradient penalties of the discriminator on real clips (R1), exact and by finite differences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.distill.discriminator_heads import Logits

LogitsOf = Callable[[Latents], Logits]  # a discriminator D with its parameters bound


def r1_penalty(logits_of: LogitsOf, real: Latents) -> Scalar:
    """The mean over clips of |dD(y)/dy|^2 at real y, D the mean of a clip's logits: R1 without its 1/2 (1801.04406)."""
    gradient = jax.grad(lambda y: jnp.sum(jnp.mean(logits_of(y), axis=1)))(real)
    return jnp.mean(jnp.sum(gradient**2, axis=(1, 2, 3, 4)))


def finite_r1_penalty(logits_of: LogitsOf, real: Latents, logits: Logits, rng: Rng, sigma: float) -> Scalar:
    """The mean of (D(y + sigma n) - D(y))^2 / sigma^2 over clips and logits, n standard normal; `logits` are D(y).

    Its expectation tends to r1_penalty as sigma falls, at the cost of one forward pass. The approximated R1 of APT
    (arXiv 2501.08316) is this times sigma^2.
    """
    noise = jax.random.normal(rng, real.shape)
    return jnp.mean((logits_of(real + sigma * noise) - logits) ** 2) / sigma**2
