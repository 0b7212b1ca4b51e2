"""Objective of step distillation: one pass through the student trains it and its discriminator or critic."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import flow_matching_loss, interpolate, predict_x0, velocity_target
from mobile_video_jax.diffusion.samplers import SOLVERS, euler_step, single_step_solver
from mobile_video_jax.diffusion.timesteps import sample_times
from mobile_video_jax.distill.adversarial import AdversarialGame, Metrics
from mobile_video_jax.distill.captioned import CaptionedLatents, Network
from mobile_video_jax.distill.config import ObjectiveConfig
from mobile_video_jax.distill.consistency import consistency_loss
from mobile_video_jax.distill.discriminator import Discriminator
from mobile_video_jax.distill.distances import mean_square, pseudo_huber
from mobile_video_jax.distill.distribution_matching import matching_losses
from mobile_video_jax.distill.few_step import STEPS, FewStepStates, Grid, few_step_states, mean_velocity
from mobile_video_jax.distill.projectors import Maps

# The networks that each method trains beside the generator, by the names of their parameters.
CRITICS: dict[str, tuple[str, ...]] = {
    "adversarial": ("discriminator",),
    "dmd": ("critic",),
    "dmd2": ("critic", "discriminator"),
    "consistency": (),
    "kd": (),
    "kdmd": ("critic",),
}
Trained = Literal["all", "generator", "opponent"]
DATA_TIME = 0.5  # x_t determines the data up to here; later their regression gives the mean of all clips of a caption


class Prediction(NamedTuple):
    """A network's velocity and, where an objective compares them, its feature maps."""

    velocity: Latents
    maps: Maps = ()


@dataclasses.dataclass(frozen=True)
class Objective:
    """(params, clips, time grid, key) -> (loss, metrics). Parameters: "generator", "teacher", the method's critics.

    Generator and critic (or discriminator) are constants to each other, so that one gradient of the summed loss holds
    the gradients of both. The student is sampled with `solver`.
    """

    student: Network
    teacher: Network
    discriminator: Discriminator
    config: ObjectiveConfig
    solver: str = "euler"

    def __call__(
        self,
        params: Any,
        clips: CaptionedLatents,
        grid: Grid,
        rng: Rng,
        *,
        shift: float = 1.0,
        trained: Trained = "all",
    ) -> tuple[Scalar, Metrics]:
        """The loss of what is `trained`: the generator alone learns by distillation and flow matching, without critics.

        `shift` is that of times that are in no grid.
        """
        cfg = self.config
        params = params | {"teacher": jax.lax.stop_gradient(params["teacher"])}
        if trained == "opponent":
            params |= {"generator": jax.lax.stop_gradient(params["generator"])}
        if cfg.method == "consistency":
            loss = self._consistency(params, clips, rng, shift)
            return loss, {"consistency": loss}
        states = self.states(params["generator"], clips, grid, named_key(rng, "visit"))
        predicted = self.predicted(params["generator"], clips, states)
        x0 = predict_x0(states.x_t, predicted.velocity, states.t)
        terms = Metrics()
        if trained != "opponent":
            terms = self._distillation(params, clips, states, predicted, len(grid) - 1)
            if cfg.flow:
                terms["flow"] = self._flow(params["generator"], clips, named_key(rng, "flow"))
        opponent_loss, metrics = jnp.zeros(()), Metrics()
        if trained != "generator":
            games, opponent_loss, metrics = self._games(params, clips, x0, grid, named_key(rng, "judge"), shift)
            terms |= games if trained == "all" else {}
        # A term's weight is the config's field of its name.
        loss = sum((getattr(cfg, name) * value for name, value in terms.items()), jnp.zeros(()))
        return loss + opponent_loss, terms | metrics

    def states(self, generator: Any, clips: CaptionedLatents, grid: Grid, rng: Rng) -> FewStepStates:
        """States at which the student is trained."""
        cfg, student = self.config, clips.velocity(self.student, jax.lax.stop_gradient(generator))
        ways: dict[str, Any] = {"own_states": cfg.own_states, "rollout": cfg.rollout, "step": STEPS[self.solver]}
        return few_step_states(student, clips.latents, grid, rng, **ways)

    def predicted(self, generator: Any, clips: CaptionedLatents, states: FewStepStates) -> Prediction:
        """What the student makes of the states."""
        return Prediction(clips.velocity(self.student, generator)(states.x_t, states.t))

    def teacher_velocity(self, teacher: Any, clips: CaptionedLatents, states: FewStepStates, steps: int) -> Latents:
        """The velocity that leads from the states to where the guided teacher would go, for a student of `steps` steps.

        Euler steps lead to the next time of the grid, and a student that noises x0 afresh is to predict the clip.
        """
        velocity, count = clips.velocity(self.teacher, teacher, self.config.guidance), self.config.teacher_steps
        if self.solver == "renoise":
            states, count = states._replace(t_next=jnp.zeros_like(states.t)), count * steps
        return mean_velocity(velocity, states, count)

    def teacher_samples(self, teacher: Any, clips: CaptionedLatents, noise: Latents, grid: Grid) -> Latents:
        """The guided teacher's clips for these captions, in `teacher_steps` Euler steps for each of the grid's."""
        velocity, parts = clips.velocity(self.teacher, teacher, self.config.guidance), self.config.teacher_steps
        share = jnp.arange(parts) / parts
        fine = jnp.append((grid[:-1, None] + jnp.diff(grid)[:, None] * share).reshape(-1), grid[-1])
        return jax.lax.stop_gradient(single_step_solver(euler_step)(velocity, noise, fine))

    def samples(self, generator: Any, clips: CaptionedLatents, noise: Latents, grid: Grid) -> Latents:
        """The student's clips, in all steps."""
        return SOLVERS[self.solver](clips.velocity(self.student, generator), noise, grid)

    def kd_error(self, generator: Any, teacher: Any, clips: CaptionedLatents, grid: Grid, rng: Rng) -> Scalar:
        """Mean squared error of the velocity against the guided teacher's, at the student's states."""
        states = self.states(generator, clips, grid, rng)
        velocity = clips.velocity(self.student, generator)(states.x_t, states.t)
        wanted = self.teacher_velocity(teacher, clips, states, len(grid) - 1)
        return jnp.mean(mean_square(velocity, wanted, clips.mask))

    def _distillation(
        self, params: Any, clips: CaptionedLatents, states: FewStepStates, predicted: Prediction, steps: int
    ) -> Metrics:
        """The terms that need no critic."""
        cfg, terms, target, velocity = self.config, Metrics(), clips.latents, predicted.velocity
        x0 = predict_x0(states.x_t, velocity, states.t)
        if cfg.kd or (cfg.distance and cfg.target == "teacher"):
            wanted = self.teacher_velocity(params["teacher"], clips, states, steps)
            terms["kd"] = jnp.mean(mean_square(velocity, wanted, clips.mask))
            if cfg.target == "teacher":
                target = predict_x0(states.x_t, wanted, states.t)
        if cfg.distance:
            distance = pseudo_huber(x0, target, clips.mask)
            terms["distance"] = jnp.mean(distance if cfg.target == "teacher" else distance * (states.t <= DATA_TIME))
        return terms

    def _flow(self, generator: Any, clips: CaptionedLatents, rng: Rng) -> Scalar:
        """The student's flow-matching loss on the data, at uniform times."""
        x0 = clips.latents
        t = jax.random.uniform(named_key(rng, "times"), (len(x0),))
        noise = jax.random.normal(named_key(rng, "noise"), x0.shape)
        velocity = clips.velocity(self.student, generator)(interpolate(x0, noise, t), t)
        return jnp.mean(flow_matching_loss(velocity, velocity_target(x0, noise), clips.mask))

    def _games(
        self, params: Any, clips: CaptionedLatents, x0: Latents, grid: Grid, rng: Rng, shift: float
    ) -> tuple[Metrics, Scalar, Metrics]:
        """The generator's terms against its critics, the critics' loss, and their metrics."""
        cfg, terms, loss, metrics = self.config, Metrics(), jnp.zeros(()), Metrics()
        critics, shift = CRITICS[cfg.method], cfg.judge_shift or shift
        if "critic" in critics:
            critic = clips.velocity(self.teacher, params["critic"])
            teacher = clips.velocity(self.teacher, params["teacher"], cfg.guidance)
            key = named_key(rng, "matching")
            terms["matching"], loss = matching_losses(teacher, critic, x0, key, shift=shift, mask=clips.mask)
            metrics["critic_loss"] = loss
        if "discriminator" in critics:
            real = clips.latents
            if cfg.real == "teacher":
                noise = jax.random.normal(named_key(rng, "teacher"), real.shape)
                real = self.teacher_samples(params["teacher"], clips, noise, grid)
            game = AdversarialGame(self.discriminator, cfg)
            terms["adversarial"], game_loss, logits = game(params, clips, real, x0, rng, shift=shift)
            loss, metrics = loss + game_loss, metrics | logits
        return terms, loss, metrics

    def _consistency(self, params: Any, clips: CaptionedLatents, rng: Rng, shift: float) -> Scalar:
        x0 = clips.latents
        t = sample_times(named_key(rng, "times"), x0.shape[0], shift=shift)
        x_t = interpolate(x0, jax.random.normal(named_key(rng, "noise"), x0.shape), t)
        student = clips.velocity(self.student, params["generator"], forward_mode=True)
        teacher = clips.velocity(self.teacher, params["teacher"], self.config.guidance)
        return jnp.mean(consistency_loss(student, teacher, x_t, t, clips.mask))
