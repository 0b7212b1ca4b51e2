"""Terms of the VAE's training loss."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Scalar, Video
from mobile_video_jax.nn.clip_ops import Clip, Resized
from mobile_video_jax.vae.posterior import Posterior

# Changes of the loss's weights in the first phase and in the fine-tuning phase. The prior's term is off while scale
# equivariance is on, as in arXiv 2502.14831.
CONSISTENT = {"latent_consistency": 1e-4}
EQUIVARIANT = {"scale_equivariance": 0.1, "kl": 0.0}


TERMS = ("l1", "l2", "kl")  # of reconstruction


def reconstruction_terms(video: Video, decoded: Video, posterior: Posterior) -> dict[str, Scalar]:
    """Mean absolute and squared error in [-1, 1], and the posterior's mean KL divergence to a standard normal."""
    error = decoded - video
    return {"l1": jnp.mean(jnp.abs(error)), "l2": jnp.mean(error**2), "kl": posterior.kl_to_normal()}


def latent_consistency(decoded: Posterior, original: Posterior) -> Scalar:
    """KL(posterior of the decoded clip || posterior of the original one), a mean over latent values.

    H3AE (arXiv 2504.10567) brings E(D(E(x))) near E(x). The target is a constant, as the term trains the decoder only:
    the caller stops the gradient into the encoder's second pass.
    """
    return decoded.kl_to(jax.lax.stop_gradient(original))


def scale_equivariance(
    decode: Callable[[Latents], Video], latents: Latents, video: Video, scales: Sequence[int]
) -> Scalar:
    """Mean over scales s of the mean of (D(down_s(z)) - down_s(x))^2, with gradients into z and D.

    "Improving the Diffusability of Autoencoders" (arXiv 2502.14831), in space only; down_s averages s x s positions.
    """
    errors = [
        jnp.mean((decode(down_sample(latents, scale)) - down_sample(video, scale)) ** 2)  # a decode at 1/s^2 the cost
        for scale in scales
    ]
    return jnp.mean(jnp.stack(errors))


def down_sample(x: Clip, scale: int) -> Resized:
    """Averages scale x scale positions of every frame."""
    b, t, h, w, c = x.shape
    return x.reshape(b, t, h // scale, scale, w // scale, scale, c).mean(axis=(3, 5))
