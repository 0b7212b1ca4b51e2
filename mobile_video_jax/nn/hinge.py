"""Hinge losses of adversarial training (Geometric GAN, arXiv 1705.02894), on logits that are positive for real."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Scalar

Logits = Float[Array, "*b"]
Mask = Bool[Array, "*b"]  # True for logits that count


def hinge_discriminator_loss(real: Logits, fake: Logits, mask: Mask | None = None) -> Scalar:
    """mean(relu(1 - real)) + mean(relu(1 + fake))."""
    return jnp.mean(jax.nn.relu(1.0 - real), where=mask) + hinge_fake_loss(fake, mask)


def hinge_fake_loss(fake: Logits, mask: Mask | None = None) -> Scalar:
    """mean(relu(1 + fake))."""
    return jnp.mean(jax.nn.relu(1.0 + fake), where=mask)


def hinge_generator_loss(fake: Logits, mask: Mask | None = None) -> Scalar:
    """-mean(fake)."""
    return -jnp.mean(fake, where=mask)
