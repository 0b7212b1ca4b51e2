"""Fine-tuning by a reward: rollouts from noise whose last steps have a gradient, alternating with flow matching."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops, count_parameters
from mobile_video_jax.diffusion.timesteps import listed_times, time_grid
from mobile_video_jax.distill.captioned import CaptionedLatents
from mobile_video_jax.latents.store import Record
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.rewards.rollout import rollout
from mobile_video_jax.stages.config import RewardTuning
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.reward import like_source
from mobile_video_jax.stages.tuning_rewards import TuningReward, open_reward
from mobile_video_jax.train.stage import Batch, Cost, Loss, Metrics, Params

REWARD, NETWORK = "reward", "generator"  # the parts of the parameters
CHECKPOINTED = 4  # forward passes that a step with a gradient costs: two, and a backward pass of two


class RewardTuningStage(DitStage):
    """A rollout's reward, and flow matching on real clips at every second step (PRFL, arXiv 2511.21541).

    Parameters are {"generator", "reward"}, or {"adapter", "base", "reward"} with an adapter; the reward is frozen.
    """

    config: RewardTuning

    def __init__(self, config: RewardTuning, sampling: Sampling = STANDARD):
        super().__init__(config, sampling)
        own = self.source.denoiser.sampling if self.source else sampling
        self.steps = config.reward.steps or own.steps
        self.guidance = config.reward.guidance or own.guidance
        if config.reward.grad_steps > self.steps:
            raise UserError(
                f"reward.grad_steps={config.reward.grad_steps}: a rollout has {self.steps} steps, use fewer"
            )
        if not self.stops.size:
            raise UserError(f"no step of {self.steps} ends from reward.low to reward.high: widen them")

    @classmethod
    def build(cls, config: RewardTuning) -> "RewardTuningStage":
        """The stage of a config, with what DenoiserConfig says of `init_from`."""
        return cls(like_source(config))

    @functools.cached_property
    def reward(self) -> TuningReward:
        """The reward. Raises UserError where the config names none, or one of other latents or captions."""
        return open_reward(self.config.reward, self.source, self.denoiser)

    @functools.cached_property
    def grid(self) -> Float[np.ndarray, "points"]:
        """The times of a rollout's steps. Raises UserError for times that the model was not distilled at."""
        sampled = self.denoiser.sampled_times(self.denoiser.tokens)
        own = self.source.denoiser.sampling if self.source else self.denoiser.sampling
        is_listed = len(own.times) == self.steps
        grid = np.asarray(listed_times(own.times) if is_listed else time_grid(self.steps, **sampled))
        own.check(grid[:-1].tolist())
        return grid

    @functools.cached_property
    def stops(self) -> np.ndarray:
        """The numbers of steps after which a rollout may end; a critic sees finished clips alone."""
        grid, reward = self.grid, self.config.reward
        if not self.reward.reads_noisy:
            return np.array([self.steps])
        count = np.flatnonzero((grid >= reward.low) & (grid <= reward.high))
        return count[count >= max(reward.grad_steps, 1)]

    # Batches.

    @property
    def arrays_of(self) -> Callable[[Record], Record]:
        return self.reward.arrays_of

    def abstract_batch(self, devices: int | None = None) -> Batch:
        batch = super().abstract_batch(devices)
        return batch | self.reward.array_shapes(batch["latents"].shape[0])

    # Parameters.

    def init(self, rng: Rng) -> Params:
        params = super().init(rng)
        own = params if self.config.lora.rank else {NETWORK: params}
        return own | {REWARD: self.reward.init(named_key(rng, "reward"))}

    def network_params(self, params: Params) -> Params:
        """The network's parameters of those that are trained, or of the averaged ones, which are its own."""
        return super().network_params(params) if self.config.lora.rank else params.get(NETWORK, params)

    @property
    def frozen(self) -> frozenset[str]:
        return super().frozen | {REWARD}

    def ema_params(self, params: Params) -> Params:
        """The network's or the adapter's, beside the reward that they are evaluated by."""
        own = super().ema_params(params) if self.config.lora.rank else params[NETWORK]
        return {**own, REWARD: {}}

    def pretrained(self, target: Params) -> Params:
        params: Params = {}
        if NETWORK in target and self.source:
            params[NETWORK] = super().pretrained(target[NETWORK])
        if "base" in target:
            params |= super().pretrained(target)
        if REWARD in target:
            params[REWARD] = self.reward.params(target[REWARD])
        return params

    # Steps.

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses of flow matching and of the reward, or the latter alone."""
        return (self.loss, self.reward_loss) if self.config.reward.alternate else (self.reward_loss,)

    def loss_index(self, step: jax.Array) -> jax.Array:
        return step % len(self.losses)

    def reward_loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        """The mean of weight max(0, log enough - log p) of rollouts for the batch's captions."""
        cfg = self.config.reward
        stop = jax.random.choice(named_key(rng, "stop"), jnp.asarray(self.stops))
        x = self._rollout(params, batch, named_key(rng, "noise"), stop, cfg.grad_steps)
        log_p = self._log_probability(jax.lax.stop_gradient(params[REWARD]), batch, x, jnp.asarray(self.grid)[stop])
        loss = cfg.weight * jnp.mean(jnp.maximum(math.log(cfg.enough) - log_p, 0.0))
        return loss, {"reward": jnp.mean(jnp.exp(log_p))}

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """The held-out velocity error, and the reward of whole rollouts from the same noise every time."""
        metrics = super().evaluate_batch(params, batch, rng)
        x = self._rollout(params, batch, named_key(rng, "rollout"), self.steps, 0)
        log_p = self._log_probability(params[REWARD], batch, x, jnp.asarray(self.grid[-1]))
        return metrics | {"reward": jnp.sum(jnp.exp(log_p) * batch["weight"]) / jnp.sum(batch["weight"])}

    def _rollout(self, params: Params, batch: Batch, rng: Rng, stop: Any, grad_steps: int) -> Latents:
        network, clips = self.network_params(params), self._clips(batch)
        noise = jax.random.normal(rng, clips.latents.shape)
        velocity, frozen = (
            clips.velocity(self.denoiser.velocity, weights, self.guidance)
            for weights in (network, jax.lax.stop_gradient(network))
        )
        return rollout(velocity, frozen, noise, jnp.asarray(self.grid), stop=stop, grad_steps=grad_steps)

    def _clips(self, batch: Batch) -> CaptionedLatents:
        mask, empty = batch.get("latent_mask"), self.empty_caption
        return CaptionedLatents(batch["latents"], batch["text"], batch["text_mask"], mask, empty)

    def _log_probability(self, reward: Params, batch: Batch, x: Latents, t: Scalar) -> Float[Array, "b"]:
        """Log probability that a clip at time t is or becomes right."""
        inputs = self._clips(batch).inputs(x, jnp.full(x.shape[:1], t))
        return self.reward.log_probability(reward, inputs, batch)

    def cost(self, devices: int | None = None) -> Cost:
        """A mean over the steps of a rollout of mean length, and of flow matching in turn."""
        batch, cfg = self.abstract_batch(devices), self.config.reward
        flow = DitStage.cost(self, devices)
        inputs = (batch["latents"], jnp.zeros(batch["latents"].shape[0]), batch["text"], batch["text_mask"])
        shapes = self.denoiser.parameter_shapes
        forward = sum(count_flops(self.denoiser.velocity, shapes, *inputs).values())
        passes = float(np.mean(self.stops)) + (CHECKPOINTED - 1) * cfg.grad_steps
        reward = int(forward * passes * (2 if self.guidance != 1 else 1))
        return Cost(flow.tokens, (flow.flops + reward) // 2 if cfg.alternate else reward)

    def description(self) -> dict[str, Any]:
        return {**super().description(), "reward_parameters": count_parameters(self.shapes[REWARD])}
