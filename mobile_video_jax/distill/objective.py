"""Objective of step distillation: one pass through the student trains it and its discriminator or critic."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents, Rng, Scalar, TextMask, TextStates, Times
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.guidance import EmptyCaption, Guidance, guided, null_text
from mobile_video_jax.diffusion.path import flow_matching_loss, interpolate, predict_x0, velocity_target
from mobile_video_jax.diffusion.samplers import Velocity
from mobile_video_jax.diffusion.timesteps import sample_times
from mobile_video_jax.distill.config import ObjectiveConfig
from mobile_video_jax.distill.discriminator import Discriminator
from mobile_video_jax.distill.discriminator_heads import Logits
from mobile_video_jax.distill.distances import mean_square, pseudo_huber
from mobile_video_jax.distill.distribution_matching import matching_direction, matching_loss
from mobile_video_jax.distill.few_step import few_step_states, mean_velocity
from mobile_video_jax.distill.gradient_penalty import finite_r1_penalty, r1_penalty
from mobile_video_jax.dit.model import BackboneOutput, Dit
from mobile_video_jax.nn.hinge import hinge_discriminator_loss, hinge_generator_loss
from mobile_video_jax.nn.module import apply

# The network that each method trains beside the generator, by the name of its parameters.
CRITICS = {"adversarial": "discriminator", "dmd": "critic", "kd": ""}
Metrics = dict[str, Scalar]


class CaptionedLatents(NamedTuple):
    """Real clips and their captions. `mask` is False at padding; `empty` is the text state of "no caption", or None."""

    latents: Latents
    text: TextStates
    text_mask: TextMask
    mask: LatentMask | None = None
    empty: EmptyCaption | None = None

    def velocity(self, dit: Dit, params: Any, guidance: float = 1.0) -> Velocity:
        """The network's velocity for these captions, at parameters `params`."""

        def denoise(x_t: Latents, t: Times, text: TextStates, text_mask: TextMask) -> Latents:
            # Guidance doubles the batch.
            mask = None if self.mask is None else jnp.resize(self.mask, x_t.shape[:4])
            velocity: Latents = apply(dit, params, x_t, t, text, text_mask, mask)
            return velocity

        negative = null_text(self.text, self.text_mask, self.empty)
        return guided(denoise, self.text, self.text_mask, Guidance(guidance), negative)


@dataclasses.dataclass(frozen=True)
class Objective:
    """(params, clips, time grid, key) -> (loss, metrics). Parameters: "generator", "teacher", the method's critic.

    Generator and critic (or discriminator) are constants to each other, so that one gradient of the summed loss holds
    the gradients of both.
    """

    student: Dit
    teacher: Dit
    discriminator: Discriminator
    config: ObjectiveConfig

    def __call__(
        self, params: Any, clips: CaptionedLatents, grid: Float[Array, "points"], rng: Rng
    ) -> tuple[Scalar, Metrics]:
        cfg = self.config
        params = params | {"teacher": jax.lax.stop_gradient(params["teacher"])}
        constant_student = clips.velocity(self.student, jax.lax.stop_gradient(params["generator"]))
        states = few_step_states(constant_student, clips.latents, grid, named_key(rng, "visit"), cfg.own_states)
        velocity = clips.velocity(self.student, params["generator"])(states.x_t, states.t)
        x0, target = predict_x0(states.x_t, velocity, states.t), clips.latents

        terms: Metrics = {}
        if cfg.kd or (cfg.distance and cfg.target == "teacher"):
            teacher = clips.velocity(self.teacher, params["teacher"], cfg.guidance)
            teacher_velocity = mean_velocity(teacher, states, cfg.teacher_steps)
            terms["kd"] = jnp.mean(mean_square(velocity, teacher_velocity, clips.mask))
            if cfg.target == "teacher":
                target = predict_x0(states.x_t, teacher_velocity, states.t)
        if cfg.distance:
            terms["distance"] = jnp.mean(pseudo_huber(x0, target, clips.mask))

        critic_loss, critic_metrics = jnp.zeros(()), Metrics()
        if cfg.method == "adversarial":
            terms["adversarial"], critic_loss, critic_metrics = self._adversarial(
                params, clips, x0, named_key(rng, "judge")
            )
        elif cfg.method == "dmd":
            terms["matching"], critic_loss = self._matching(params, clips, x0, named_key(rng, "judge"))
            critic_metrics = {"critic_loss": critic_loss}
        # A term's weight is the config's field of its name.
        loss = sum((getattr(cfg, name) * value for name, value in terms.items()), jnp.zeros(()))
        return loss + critic_loss, terms | critic_metrics

    def _adversarial(
        self, params: Any, clips: CaptionedLatents, x0: Latents, rng: Rng
    ) -> tuple[Scalar, Scalar, Metrics]:
        """The generator's hinge loss, the discriminator's loss with its penalty, and the discriminator's metrics."""
        cfg, discriminator, head, grid = self.config, self.discriminator, params["discriminator"], x0.shape[1:4]
        t = sample_times(named_key(rng, "times"), x0.shape[0], shift=cfg.judge_shift)

        def noised(x: Latents, name: str) -> Latents:
            return interpolate(x, jax.random.normal(named_key(rng, name), x.shape), t)

        def features(y: Latents) -> BackboneOutput:
            return discriminator.features(params["teacher"], y, t, clips.text, clips.text_mask, clips.mask)

        def logits(y: Latents) -> Logits:
            return discriminator.logits(head, features(y), grid)

        real, fake_features = noised(clips.latents, "real"), features(noised(x0, "fake"))
        constant_head = jax.lax.stop_gradient(head)
        generator_loss = hinge_generator_loss(discriminator.logits(constant_head, fake_features, grid))
        real_logits = logits(real)
        fake_logits = discriminator.logits(head, jax.lax.stop_gradient(fake_features), grid)
        loss = hinge_discriminator_loss(real_logits, fake_logits)
        metrics = {
            "discriminator_loss": loss,
            "real_logit": jnp.mean(real_logits),
            "fake_logit": jnp.mean(fake_logits),
            "real_accuracy": jnp.mean(real_logits > 0),
            "fake_accuracy": jnp.mean(fake_logits < 0),
        }
        if cfg.r1:
            if cfg.r1_form == "exact":
                metrics["r1"] = r1_penalty(logits, real)
            else:
                metrics["r1"] = finite_r1_penalty(logits, real, real_logits, named_key(rng, "r1"), cfg.r1_sigma)
            loss = loss + cfg.r1 * metrics["r1"]
        return generator_loss, loss, metrics

    def _matching(self, params: Any, clips: CaptionedLatents, x0: Latents, rng: Rng) -> tuple[Scalar, Scalar]:
        """The student's distribution matching loss, and the critic's flow matching loss on the student's clips."""
        constant = jax.lax.stop_gradient(x0)
        t = sample_times(named_key(rng, "times"), x0.shape[0], shift=self.config.judge_shift)
        noise = jax.random.normal(named_key(rng, "noise"), x0.shape)
        y = interpolate(constant, noise, t)
        fake = clips.velocity(self.teacher, params["critic"])(y, t)
        real = clips.velocity(self.teacher, params["teacher"], self.config.guidance)(y, t)
        direction = matching_direction(constant, predict_x0(y, real, t), predict_x0(y, fake, t), clips.mask)
        critic_loss = flow_matching_loss(fake, velocity_target(constant, noise), clips.mask)
        return jnp.mean(matching_loss(x0, direction, clips.mask)), jnp.mean(critic_loss)
