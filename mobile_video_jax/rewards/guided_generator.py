"""Generators whose clips are guided to the right number of objects."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.models.run import Run
from mobile_video_jax.rewards.attention_guide import AttentionGuide
from mobile_video_jax.rewards.count_guides import BestOf, CriticGuide
from mobile_video_jax.rewards.counter import Counter, CountGuide
from mobile_video_jax.rewards.critic import SmallCritic

GUIDES: dict[str, type[CountGuide]] = {guide.name: guide for guide in (CriticGuide, AttentionGuide, BestOf)}


def make_guide(name: str, strength: float | None = None) -> CountGuide:
    """A guide of GUIDES with its own settings, or another strength where it has one."""
    if strength is None or name == BestOf.name:
        return GUIDES[name]()
    return dataclasses.replace(GUIDES[name](), strength=strength)  # type: ignore[type-var]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GuidedGenerator(Generator):
    """A generator whose latents come from a guide, with a critic that counts."""

    guide: CountGuide
    counter: Counter
    critic_run: Run

    @classmethod
    def of(cls, generator: Generator, guide: CountGuide, critic: Run | str) -> "GuidedGenerator":
        """The generator with a guide. Raises UserError for a run that is no critic."""
        small = SmallCritic(Run.open(critic))
        counter = Counter(generator, small.vqa, small.params_over(generator.mesh))
        fields = {field.name: getattr(generator, field.name) for field in dataclasses.fields(generator)}
        return cls(**fields, guide=guide, counter=counter, critic_run=small.run)

    def latents(self, requests: Sequence[Request], config: SampleConfig) -> jax.Array:
        return self.guide.latents(self.counter, requests, config.with_times(**self.times))

    def check(self, requests: Sequence[Request], config: SampleConfig) -> None:
        super().check(requests, config)
        self.guide.check(self, requests, config)

    def settings(self, config: SampleConfig) -> dict[str, Any]:
        guide = {"name": self.guide.name, **dataclasses.asdict(self.guide)}  # type: ignore[call-overload]
        evaluations = self.guide.evaluations(config)
        return {"guide": guide, "critic": str(self.critic_run), "evaluations_per_clip": evaluations}
