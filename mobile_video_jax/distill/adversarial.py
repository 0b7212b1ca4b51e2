"""Adversarial losses of a generator of clips and a discriminator that sees them noised."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.timesteps import sample_times
from mobile_video_jax.distill.captioned import CaptionedLatents
from mobile_video_jax.distill.config import ObjectiveConfig
from mobile_video_jax.distill.discriminator import Discriminator
from mobile_video_jax.distill.discriminator_heads import Features, Logits
from mobile_video_jax.distill.gradient_penalty import finite_r1_penalty, r1_penalty
from mobile_video_jax.nn.hinge import hinge_discriminator_loss, hinge_fake_loss, hinge_generator_loss

Metrics = dict[str, Scalar]


@dataclasses.dataclass(frozen=True)
class AdversarialGame:
    """Hinge losses on logits of clips that are noised to random times. Parameters: "discriminator", "teacher"."""

    discriminator: Discriminator
    config: ObjectiveConfig

    def __call__(
        self, params: Any, clips: CaptionedLatents, real: Latents, x0: Latents, rng: Rng, *, shift: float
    ) -> tuple[Scalar, Scalar, Metrics]:
        """The generator's loss on its clips x0, the discriminator's with its penalty, and the latter's metrics.

        Neither has a gradient in the other's parameters. `shift` is that of the times.
        """
        cfg, discriminator, head, grid = self.config, self.discriminator, params["discriminator"], x0.shape[1:4]
        t = sample_times(named_key(rng, "times"), x0.shape[0], shift=shift)

        def noised(x: Latents, name: str) -> Latents:
            return interpolate(x, jax.random.normal(named_key(rng, name), x.shape), t)

        def features(y: Latents, of: CaptionedLatents = clips) -> Features:
            return discriminator.features(params["teacher"], *of.inputs(y, t))

        def logits(y: Latents) -> Logits:
            return discriminator.logits(head, features(y), grid)

        real = noised(real, "real")
        fake_features = features(noised(x0, "real" if cfg.same_noise else "fake"))
        mask = discriminator.logit_mask(clips.mask, grid)
        generator_loss = hinge_generator_loss(
            discriminator.logits(jax.lax.stop_gradient(head), fake_features, grid), mask
        )
        real_logits = logits(real)
        fake_logits = discriminator.logits(head, jax.lax.stop_gradient(fake_features), grid)
        loss = hinge_discriminator_loss(real_logits, fake_logits, mask)
        metrics = {
            "discriminator_loss": loss,
            "real_logit": jnp.mean(real_logits, where=mask),
            "fake_logit": jnp.mean(fake_logits, where=mask),
            "real_accuracy": jnp.mean(real_logits > 0, where=mask),
            "fake_accuracy": jnp.mean(fake_logits < 0, where=mask),
        }
        if cfg.mismatched:
            other = discriminator.logits(head, features(real, clips.with_other_captions()), grid)
            metrics["mismatched_accuracy"] = jnp.mean(other < 0, where=mask)
            loss = loss + cfg.mismatched * hinge_fake_loss(other, mask)
        if cfg.r1:
            if cfg.r1_form == "exact":
                metrics["r1"] = r1_penalty(logits, real)
            else:
                metrics["r1"] = finite_r1_penalty(logits, real, real_logits, named_key(rng, "r1"), cfg.r1_sigma)
            loss = loss + cfg.r1 * metrics["r1"]
        return generator_loss, loss, metrics
