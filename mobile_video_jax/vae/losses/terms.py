"""Terms of the VAE's training loss."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, Scalar, Video
from mobile_video_jax.nn.clip_ops import Clip, Resized
from mobile_video_jax.vae.posterior import Posterior

TERMS = ("l1", "l2", "kl")  # of reconstruction


def reconstruction_terms(video: Video, decoded: Video, posterior: Posterior) -> dict[str, Scalar]:
    """Mean absolute and squared error in [-1, 1], and the posterior's mean KL divergence to a standard normal."""
    error = decoded - video
    return {"l1": jnp.mean(jnp.abs(error)), "l2": jnp.mean(error**2), "kl": posterior.kl_to_normal()}


def latent_consistency(decoded: Posterior, original: Posterior) -> Scalar:
    """KL(posterior of the decoded clip || posterior of the original one), a mean over latent values.

    H3AE (arXiv 2504.10567) brings E(D(E(x))) near E(x). The target is a constant, as the term trains the decoder only:
    the caller stops the gradient into the latents, and into the parameters of the encoder's second pass.
    """
    return decoded.kl_to(jax.lax.stop_gradient(original))


def consistency_mse(decoded: Posterior, original: Posterior) -> Scalar:
    """Squared distance of the posteriors' means, of latents with a deviation of one in each channel of the batch.

    Latent consistency on a scale that neither the latents' size nor the posterior's variance changes. The target is a
    constant, as there.
    """
    target = jax.lax.stop_gradient(original.mean)
    deviation = jnp.std(target, axis=(0, 1, 2, 3)) + 1e-6
    return jnp.mean(((decoded.mean - target) / deviation) ** 2)


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


def equivariance(
    decode: Callable[[Latents], Video], latents: Latents, video: Video, scales: Sequence[int], rng: Rng
) -> Scalar:
    """Mean over scales s, 1 among them, of the mean of (D(turn(down_s(z))) - turn(down_s(x)))^2.

    EQ-VAE (arXiv 2502.09509), in space only. It takes one scale between a quarter and 1 a step, in place of
    reconstruction; here the term stands beside it, with the scales of `scale_equivariance`, so that both compare.
    """
    errors = []
    for key, scale in zip(jax.random.split(rng, 1 + len(scales)), (1, *scales), strict=True):
        turn = random_turn(key)
        smaller, target = (turn(down_sample(x, scale)) for x in (latents, video))
        errors.append(jnp.mean((decode(smaller) - target) ** 2))
    return jnp.mean(jnp.stack(errors))


def random_turn(rng: Rng) -> Callable[[Clip], Resized]:
    """A turn of frames by one, two or three quarters, the same for all clips given; of frames not square by two."""
    quarters = jax.random.randint(rng, (), 0, 3)

    def turn(x: Clip) -> Resized:
        turns = [functools.partial(jnp.rot90, k=k, axes=(2, 3)) for k in (1, 2, 3)]
        square = x.shape[2] == x.shape[3]
        turned: jax.Array = jax.lax.switch(quarters, turns, x) if square else turns[1](x)
        return turned

    return turn


def down_sample(x: Clip, scale: int) -> Resized:
    """Averages scale x scale positions of every frame."""
    b, t, h, w, c = x.shape
    return x.reshape(b, t, h // scale, scale, w // scale, scale, c).mean(axis=(3, 5))
