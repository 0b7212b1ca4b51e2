"""What both players of the adversarial game want, as functions of logits: one a clip, positive for real."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.distill.discriminator_heads import Logits

Judge = Callable[[Latents], Logits]


def hinge_discriminator_loss(real: Logits, fake: Logits) -> Scalar:
    """mean(relu(1 - real)) + mean(relu(1 + fake)), Geometric GAN (arXiv 1705.02894)."""
    return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


def hinge_generator_loss(fake: Logits) -> Scalar:
    """-mean(fake), Geometric GAN (arXiv 1705.02894)."""
    return -jnp.mean(fake)


def r1_penalty(judge: Judge, real: Latents) -> Scalar:
    """The mean over clips of |dD(y)/dy|^2 at real y: R1 without its factor 1/2 (arXiv 1801.04406)."""
    gradient = jax.grad(lambda y: jnp.sum(judge(y)))(real)
    return jnp.mean(jnp.sum(gradient**2, axis=(1, 2, 3, 4)))


def finite_r1_penalty(judge: Judge, real: Latents, logits: Logits, rng: Rng, sigma: float) -> Scalar:
    """The mean of (D(y + sigma n) - D(y))^2 / sigma^2, n standard normal; `logits` are D(y).

    Its expectation tends to r1_penalty as sigma falls, at the price of one forward pass; the approximated R1 of
    APT (arXiv 2501.08316) is this times sigma^2.
    """
    noise = jax.random.normal(rng, real.shape)
    return jnp.mean((judge(real + sigma * noise) - logits) ** 2) / sigma**2
