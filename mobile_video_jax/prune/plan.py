"""What is to be pruned and by how much: the config, and the plan that shapes alone decide."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.kd import KdWeights
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.prune.budget import Ratios, fraction_limits, stage_limits, target_limits
from mobile_video_jax.prune.costs import Number, counted_costs
from mobile_video_jax.prune.search import greedy
from mobile_video_jax.prune.space import SearchSpace
from mobile_video_jax.prune.units import LEVELS, WIDTHS, Units, channel_group, kept_shapes

SEARCHES = ("greedy", "joint")
SCORES = ("kd", "magnitude", "random")
SCORINGS = ("exact", "taylor")


@dataclasses.dataclass(frozen=True)
class Budget:
    """Shares of the model's own costs that may be left (prune/costs.py); 0 sets no limit."""

    parameters: float = 0.0
    flops: float = 0.0
    activations: float = 0.0
    latency: float = 0.0


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """How a transformer is pruned.

    Without any limit in `budget` the parameters are limited to those of a model that keeps `ratios` of each level;
    these also divide a budget between the levels. `levels`, `uniform` and the multiples are those of SearchSpace; FFN
    channels go in groups of `group` (0: channel_group). `search` decides which plan is sliced, greedy or joint, by the
    `score` of units: the rise of the distillation loss ("kd"), weights alone ("magnitude"), or chance ("random").
    `heads` and `channels` are scored exactly or to first order with `probes` random vectors ("taylor"). The loss is the
    mean over `clips` clips at `times` times, `batch_clips` clips and `rows` masked models in one program.
    """

    budget: Budget = dataclasses.field(default_factory=Budget)
    ratios: Ratios = dataclasses.field(default_factory=Ratios)
    levels: tuple[str, ...] = tuple(LEVELS)
    uniform: bool = True
    heads_multiple: int = 1
    ffn_multiple: int = 64
    group: int = 0
    search: str = "greedy"
    score: str = "kd"
    heads: str = "exact"
    channels: str = "exact"
    probes: int = 8
    kd: KdWeights = dataclasses.field(default_factory=KdWeights)
    clips: int = 64
    times: int = 4
    batch_clips: int = 8
    rows: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("search", SEARCHES), ("score", SCORES), ("heads", SCORINGS), ("channels", SCORINGS)):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} '{getattr(self, name)}' is unknown: use {' or '.join(allowed)}")
        for name in ("probes", "clips", "times", "batch_clips", "rows"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.score != "kd" and self.search != "greedy":
            raise UserError(f"search '{self.search}' needs the scores of score=kd: use search=greedy")
        if self.clips % self.batch_clips:
            raise UserError(f"{self.clips} clips are no whole batches of {self.batch_clips}: change batch_clips")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The search space, the limits to meet, and those after each level."""

    space: SearchSpace
    limits: Mapping[str, Number]
    stages: Mapping[str, Mapping[str, Number]]


def make_plan(config: PruneConfig, denoiser: Denoiser) -> Plan:
    """The plan for a transformer. Raises UserError for a budget out of reach."""
    model = denoiser.config.model
    inputs = denoiser.input_shapes(1)
    latents, text, mask = inputs["latents"], inputs["text"], inputs["text_mask"]
    costs = counted_costs(model, latents, jax.ShapeDtypeStruct((1,), jnp.float32), text, mask)
    units = Units(model, config.group or channel_group(model))
    multiples = (config.heads_multiple, config.ffn_multiple)
    space = SearchSpace(units, costs, *multiples, config.uniform, config.levels)
    fractions = {name: share for name, share in dataclasses.asdict(config.budget).items() if share}
    if fractions:
        limits = fraction_limits(space, fractions)
    else:
        limits = {"parameters": target_limits(space, config.ratios)["parameters"]}
    return Plan(space, limits, stage_limits(space, limits, config.ratios))


def planned_shapes(plan: Plan) -> tuple[BlockShape, ...]:
    """The blocks that are left where all units matter alike.

    With uniform widths these are the sizes of every greedy plan: sensitivity decides which units go, limits how many.
    """
    return kept_shapes(greedy(plan.space, plan.stages, lambda keep, units: np.ones(len(units))))


def costs_of(plan: Plan, shapes: tuple[BlockShape, ...]) -> dict[str, Number]:
    """What a model of these blocks costs."""
    return {name: cost.of(shapes) for name, cost in plan.space.costs.items()}


def sizes_of(shapes: tuple[BlockShape, ...]) -> dict[str, Any]:
    """Depth and mean widths of blocks, which are whole numbers where all are equal."""
    mean = {kind: float(np.mean([getattr(shape, kind) for shape in shapes])) for kind in WIDTHS}
    return {"blocks": len(shapes)} | {kind: int(x) if x == int(x) else round(x, 1) for kind, x in mean.items()}


def scoring_flops(config: PruneConfig, plan: Plan) -> float:
    """FLOPs of all scoring: the table of all units, and the scores that greedy takes as it goes.

    An exact score is a forward pass of every clip at every time. First order takes a forward and a backward pass (three
    of them), and a backward pass (two) for each probe.
    """
    units, shapes = plan.space.units, planned_shapes(plan)
    passes = float(sum(range(len(shapes) + 1, len(units.shapes) + 1)))  # blocks, once after each removal
    forward = {"head": config.heads, "channel": config.channels}
    for level, scoring in forward.items():
        kept = [sum(getattr(shape, kind) / units.step(kind) for kind in LEVELS[level]) for shape in shapes]
        every = [sum(getattr(shape, kind) / units.step(kind) for kind in LEVELS[level]) for shape in units.shapes]
        passes += sum(kept) + sum(every) if scoring == "exact" else 2 * (3 + 2 * config.probes)
    return passes * config.clips * config.times * plan.space.costs["flops"].of(units.shapes)
