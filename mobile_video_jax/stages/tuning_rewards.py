"""Rewards that a transformer is fine-tuned by: of noisy latents, or of a critic that sees decoded frames."""

import abc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.latents.store import Record
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.nn.module import init
from mobile_video_jax.rewards.config import TuningConfig
from mobile_video_jax.rewards.critic import Critic, SmallCritic
from mobile_video_jax.rewards.qwen.critic import QWEN, QwenCritic
from mobile_video_jax.stages.reward import RewardStage
from mobile_video_jax.train.stage import Batch, Params

SHARED = ("compression", "text_encoder", "text_width", "text_tokens")  # of a latent reward and the model
Inputs = tuple[Any, ...]  # of the transformer: x_t, t, text states, text mask, latent mask


class TuningReward(abc.ABC):
    """A frozen reward: its parameters, what it needs of a batch, and the log probability of right clips."""

    reads_noisy: bool  # whether rollouts may end before time 0

    @abc.abstractmethod
    def init(self, rng: Rng) -> Params:
        """Random parameters, each with its logical axis names."""

    @abc.abstractmethod
    def params(self, target: Params) -> Params:
        """The trained parameters, sharded like `target`."""

    @abc.abstractmethod
    def log_probability(self, params: Params, inputs: Inputs, batch: Batch) -> Float[Array, "b"]:
        """Log probability that clips, given as the transformer's inputs, are or become right."""

    def arrays_of(self, record: Record) -> Record:
        """Further arrays of a batch, made of each record of the data."""
        return {}

    def array_shapes(self, clips: int) -> Batch:
        """The shapes of these arrays of a batch."""
        return {}


class LatentTuningReward(TuningReward):
    """The latent reward of a run of configs/reward.py."""

    reads_noisy = True

    def __init__(self, run: Run, denoiser: Denoiser):
        self.run, self.stage = run, RewardStage.of_run(run)
        for key in SHARED:
            ours, theirs = getattr(denoiser.config, key), getattr(self.stage.config, key)
            if ours != theirs:
                raise UserError(f"the reward {run} has {key}={theirs}, the model {ours}: train one for this model")

    def init(self, rng: Rng) -> Params:
        return self.stage.init(rng)

    def params(self, target: Params) -> Params:
        return self.run.params(target)

    def log_probability(self, params: Params, inputs: Inputs, batch: Batch) -> Float[Array, "b"]:
        return jax.nn.log_sigmoid(self.stage.reward.logits(params, *inputs))


class PixelTuningReward(TuningReward):
    """A critic of decoded frames (Diffusion-DRF, arXiv 2601.04153). Parameters: "critic" and "vae"."""

    reads_noisy = False

    def __init__(self, critic: Critic, source: Run):
        self.critic, self.vae = critic, source.vae()

    def init(self, rng: Rng) -> Params:
        space = self.vae.vae.config.strides.space
        vae = init(self.vae.vae, named_key(rng, "vae"), jnp.zeros((1, 1, space, space, 3)))
        return {"critic": self.critic.init(named_key(rng, "critic")), "vae": vae}

    def params(self, target: Params) -> Params:
        return {"critic": self.critic.params(target["critic"]), "vae": self.vae.params}

    def log_probability(self, params: Params, inputs: Inputs, batch: Batch) -> Float[Array, "b"]:
        """The decoder is checkpointed: its activations take more memory than anything else here."""
        video = jax.checkpoint(self.vae.decode)(params["vae"], inputs[0])
        return self.critic.log_probability(params["critic"], video, batch)

    def arrays_of(self, record: Record) -> Record:
        return dict(self.critic.questions(record["caption"]))

    def array_shapes(self, clips: int) -> Batch:
        return dict(self.critic.question_shapes(clips))


def open_reward(config: TuningConfig, source: Run | None, denoiser: Denoiser) -> TuningReward:
    """The reward that a config names, for a model of the run `source`.

    Raises UserError where it names none, a run or folder of something else, or a reward of other latents or captions.
    """
    if not config.run:
        raise UserError("name a run of configs/reward.py or configs/critic.py with --config.reward.run=RUN")
    kind, _, folder = config.run.partition(":")
    if kind != QWEN:
        run = Run.open(config.run)
        if run.stage == "reward":
            return LatentTuningReward(run, denoiser)
        if run.stage != "critic":
            raise UserError(f"{run} is of stage '{run.stage}': name a run of configs/reward.py or configs/critic.py")
    if source is None:
        raise UserError("a critic sees what the model's VAE decodes: name the model with --config.init_from=RUN")
    rate = denoiser.sampling.frame_rate or FRAME_RATE
    critic = QwenCritic(Path(folder), config.aspects, rate) if kind == QWEN else SmallCritic(run, config.aspects)
    return PixelTuningReward(critic, source)
