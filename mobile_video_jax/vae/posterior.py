"""The Gaussian posterior over latents."""

import flax.struct
import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, Scalar


@flax.struct.dataclass
class Posterior:
    """A diagonal Gaussian over latents [b lt lh lw c]."""

    mean: Latents
    log_variance: Latents

    def sample(self, rng: Rng) -> Latents:
        """Samples mean + std * noise (arXiv 1312.6114)."""
        noise = jax.random.normal(rng, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl_to_normal(self) -> Scalar:
        """KL divergence to a standard normal, 0.5 (m^2 + s^2 - log s^2 - 1), averaged over latent values."""
        return 0.5 * jnp.mean(self.mean**2 + jnp.exp(self.log_variance) - self.log_variance - 1.0)

    def kl_to(self, other: "Posterior") -> Scalar:
        """KL(self || other) = 0.5 (log(s2_o / s2) + (s2 + (m - m_o)^2) / s2_o - 1), averaged over latent values."""
        log_ratio = self.log_variance - other.log_variance
        distance = (self.mean - other.mean) ** 2 * jnp.exp(-other.log_variance)
        return 0.5 * jnp.mean(jnp.exp(log_ratio) - log_ratio + distance - 1.0)
