"""The plan of what is pruned, which shapes alone decide."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.prune.budget import fraction_limits, stage_limits, target_limits
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.costs import Number, counted_costs
from mobile_video_jax.prune.search import greedy
from mobile_video_jax.prune.space import SearchSpace
from mobile_video_jax.prune.units import LEVELS, WIDTHS, Units, channel_group, kept_shapes


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
