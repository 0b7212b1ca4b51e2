"""The VAE's training objective: one pass through the network and the weighted sum of its terms."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import ImageFeatures, Latents, Rng, Scalar, Video
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.nn.clip_ops import shuffle_down, shuffle_up
from mobile_video_jax.nn.hinge import hinge_discriminator_loss, hinge_generator_loss
from mobile_video_jax.nn.module import apply
from mobile_video_jax.vae.config import VaeLossConfig
from mobile_video_jax.vae.losses.adaptive import adaptive_weight
from mobile_video_jax.vae.losses.discriminator import PatchDiscriminator
from mobile_video_jax.vae.losses.perceptual import perceptual_distance
from mobile_video_jax.vae.losses.teacher import Projectors, decode_with_features, feature_error, pairs
from mobile_video_jax.vae.losses.terms import (
    consistency_mse,
    equivariance,
    latent_consistency,
    reconstruction_terms,
    scale_equivariance,
)
from mobile_video_jax.vae.losses.vgg import Vgg
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.posterior import Posterior

# What a step does with the discriminator: it does not take part, learns alone, or both sides of its term count.
Adversary = Literal["absent", "learns", "counts"]


@dataclasses.dataclass(frozen=True)
class VaeObjective:
    """(params, clips, key) -> (loss, terms).

    Parameters beside the VAE's, where used: "vgg", "discriminator", "teacher" (the decoder of another VAE of the same
    latents) and "projectors" of features.
    """

    vae: Vae
    weights: VaeLossConfig
    image_probability: float  # share of clips that an omni decoder decodes with their first frame's features
    scales: tuple[int, ...]  # of both equivariances
    vgg: Vgg
    discriminator: PatchDiscriminator
    teacher: nn.Module | None = None  # the network of the VAE whose decoder teaches
    adaptive: bool = False  # whether the adversarial weight is a share of reconstruction's gradient

    def __call__(
        self, params: Any, video: Video, rng: Rng, adversary: Adversary = "counts"
    ) -> tuple[Scalar, dict[str, Scalar]]:
        weights, adversary = self.weights, adversary if self.weights.adversarial else "absent"
        posterior, image = apply(self.vae, params, video, method="encode_with_image")
        latents = posterior.sample(named_key(rng, "posterior"))
        image = self._dropped_out(image, named_key(rng, "image"))
        decoded = apply(self.vae, params, latents, image, method="decode")
        terms = reconstruction_terms(video, decoded, posterior)
        if weights.teacher or weights.features:
            terms |= self._taught(params, latents, image)
        if weights.latent_consistency or weights.consistency_mse:
            terms |= self._consistent(params, latents, image, posterior)
        if weights.scale_equivariance or weights.eq:
            terms |= self._equivariant(params, latents, video, named_key(rng, "turns"))
        if weights.perceptual:
            terms["perceptual"] = perceptual_distance(self.vgg, params["vgg"], video, decoded)
        loss = sum((getattr(weights, name) * value for name, value in terms.items()), jnp.zeros(()))
        if adversary == "counts":
            value, weight = self._adversarial(params, video, decoded)
            terms |= {"adversarial": value, **({"adversarial_weight": weight} if self.adaptive else {})}
            loss = loss + weight * value
        if adversary != "absent":
            # VAE and discriminator are trained in one step, as constants to each other.
            terms["discriminator"] = self._discriminator_loss(params["discriminator"], video, decoded)
            loss = loss + terms["discriminator"]
        return loss, terms

    def _consistent(
        self, params: Any, latents: Latents, image: ImageFeatures | None, posterior: Posterior
    ) -> dict[str, Scalar]:
        """Distances of the decoded clip's posterior from the original's, which train the decoder alone."""
        constant = jax.lax.stop_gradient((params, latents, image))
        decoded = apply(self.vae, params, *constant[1:], method="decode")
        again = apply(self.vae, constant[0], decoded, method="encode")
        distances = {"latent_consistency": latent_consistency, "consistency_mse": consistency_mse}
        return {name: of(again, posterior) for name, of in distances.items() if getattr(self.weights, name)}

    def _equivariant(self, params: Any, latents: Latents, video: Video, rng: Rng) -> dict[str, Scalar]:
        """Errors of decoding latents that were averaged, and turned."""
        patch = self.vae.config.strides.patch  # averages are of positions that are neighbours in the clip
        decode = lambda z: apply(self.vae, params, shuffle_down(z, 1, patch), method="decode")
        unpacked, terms = shuffle_up(latents, 1, patch), {}
        if self.weights.scale_equivariance:
            terms["scale_equivariance"] = scale_equivariance(decode, unpacked, video, self.scales)
        if self.weights.eq:
            terms["eq"] = equivariance(decode, unpacked, video, self.scales, rng)
        return terms

    def _taught(self, params: Any, latents: Latents, image: ImageFeatures | None) -> dict[str, Scalar]:
        """Errors from what the teacher's decoder makes of the latents. The decoder's pass is traced twice, run once."""
        assert self.teacher
        decoded, features = decode_with_features(self.vae, params["decoder"], latents, image)
        target, of_teacher = decode_with_features(self.teacher, params["teacher"], jax.lax.stop_gradient(latents))
        terms = {"teacher": jnp.mean(jnp.abs(decoded - jax.lax.stop_gradient(target)))}
        if self.weights.features:
            both = pairs(features, of_teacher)
            terms["features"] = feature_error(apply(Projectors(), params["projectors"], both), both)
        return terms

    def _dropped_out(self, image: ImageFeatures, rng: Rng) -> ImageFeatures | None:
        """The first frame's features, zero for a random share of the clips; None unless the decoder is omni."""
        if not self.vae.config.omni:
            return None
        keep = jax.random.bernoulli(rng, self.image_probability, (image[0].shape[0], 1, 1, 1, 1))
        return tuple(level * keep for level in image)

    def _adversarial(self, params: Any, video: Video, decoded: Video) -> tuple[Scalar, Scalar]:
        """The discriminator's judgement of the decoded clips, and its weight."""
        constant = jax.lax.stop_gradient(params["discriminator"])

        def judged(decoded: Video) -> Scalar:
            return hinge_generator_loss(apply(self.discriminator, constant, decoded))

        def reconstruction(decoded: Video) -> Scalar:
            error = decoded - video
            loss = self.weights.l1 * jnp.mean(jnp.abs(error)) + self.weights.l2 * jnp.mean(error**2)
            if self.weights.perceptual:
                loss += self.weights.perceptual * perceptual_distance(self.vgg, params["vgg"], video, decoded)
            return loss

        share = jnp.asarray(self.weights.adversarial)
        weight = share * adaptive_weight(reconstruction, judged, decoded) if self.adaptive else share
        return judged(decoded), weight

    def _discriminator_loss(self, params: Any, video: Video, decoded: Video) -> Scalar:
        real = apply(self.discriminator, params, video)
        fake = apply(self.discriminator, params, jax.lax.stop_gradient(decoded))
        return hinge_discriminator_loss(real, fake)
