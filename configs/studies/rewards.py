"""Studies of rewards, and of guides to the right number of objects."""

import dataclasses
from collections.abc import Callable
from typing import Any

from configs import critic, reward, reward_tuning
from configs.studies.distillation import distillation_study_gpu
from configs.studies.trainings import dit_training, vae_training
from mobile_video_jax.core.config import Config, from_mapping
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.stages.config import CriticTraining, RewardTraining, RewardTuning
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.studies.reward_config import CountingStudy, RewardStudy

# Several small objects, which the small transformer of so few steps often gets wrong: there is room to improve.
REWARD_WORLD = World(
    counts=(1, 2, 3), shapes=("square", "cross"), motions=("left", "right", "still"), backgrounds=("dark",)
)


def reward_study(**changes: Any) -> RewardStudy:
    study = RewardStudy(
        vae=vae_training("tiny_t4_s8_c16", steps=800, checkpoint_every=400, eval_every=400),
        dit=dit_training("tiny", steps=900, eval_every=300, checkpoint_every=300),
        world=REWARD_WORLD,
        seeds=(0, 1, 2),
        samples=240,
        sampling=SampleConfig(steps=20, guidance=4.0),
        rollout=SampleConfig(steps=10, guidance=3.0),
        reward=from_mapping(RewardTraining, reward.get_config("tiny").to_dict()),
        critic=_critic(),
        tuning=from_mapping(RewardTuning, reward_tuning.get_config("tiny").to_dict()),
    )
    return dataclasses.replace(study, **changes)


def _reward_gpu() -> RewardStudy:
    chain = distillation_study_gpu()
    shared: dict[str, Any] = {f.name: getattr(chain, f.name) for f in dataclasses.fields(ChainStudy)}
    tuning = from_mapping(RewardTuning, reward_tuning.get_config("small").to_dict())
    latent = from_mapping(RewardTraining, reward.get_config("small").to_dict())
    critic = dataclasses.replace(_critic(), clip=chain.vae.clip, steps=20_000)
    rollout = SampleConfig(steps=40, guidance=5.0)
    return reward_study(**shared, reward=latent, critic=critic, tuning=tuning, rollout=rollout, labelled=20_000)


def _critic(**changes: Any) -> CriticTraining:
    return dataclasses.replace(from_mapping(CriticTraining, critic.get_config().to_dict()), **changes)


def _short_rewards() -> dict[str, Any]:
    """Trainings of the quick studies of rewards."""
    tuning = from_mapping(RewardTuning, reward_tuning.get_config("tiny").to_dict())
    return {"critic": _critic(steps=700), "tuning": dataclasses.replace(tuning, steps=150)}


def _counting(**changes: Any) -> CountingStudy:
    chain = reward_study()
    shared: dict[str, Any] = {f.name: getattr(chain, f.name) for f in dataclasses.fields(ChainStudy)}
    return CountingStudy(**shared | {"critic": _critic()} | changes)


STUDIES: dict[str, Callable[[], Config]] = {
    "reward": reward_study,
    "reward_quick": lambda: reward_study(
        seeds=(0,),
        arms=("latent", "critic-2"),
        samples=120,
        labelled=600,
        curve_samples=60,
        points=2,
        **_short_rewards(),
    ),
    "reward_gpu": _reward_gpu,
    "counting": _counting,
    "counting_quick": lambda: _counting(seeds=(0,), samples=120, critic=_critic(steps=700)),
    "counting_gpu": lambda: dataclasses.replace(
        _counting(**{f.name: getattr(distillation_study_gpu(), f.name) for f in dataclasses.fields(ChainStudy)}),
        critic=dataclasses.replace(_critic(), clip="17x128x128", steps=20_000),
    ),
}
