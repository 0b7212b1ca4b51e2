"""Hinge losses of adversarial training (Geometric GAN, arXiv 1705.02894), on logits that are positive for real."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Scalar

Logits = Float[Array, "*b"]


def hinge_discriminator_loss(real: Logits, fake: Logits) -> Scalar:
    """mean(relu(1 - real)) + mean(relu(1 + fake))."""
    return jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))


def hinge_generator_loss(fake: Logits) -> Scalar:
    """-mean(fake)."""
    return -jnp.mean(fake)
