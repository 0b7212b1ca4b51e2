"""The plan of pruning, decided by shapes alone: what may be removed, and the limits to meet."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.cli import load_config
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.budget import fraction_limits, level_limits, target_limits
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.costs import Number, counted_costs
from mobile_video_jax.prune.search import greedy
from mobile_video_jax.prune.space import SearchSpace
from mobile_video_jax.prune.units import LEVELS, WIDTHS, Units, channel_group, kept_shapes


@dataclasses.dataclass(frozen=True)
class Plan:
    """The models to choose from and the limits on their costs."""

    space: SearchSpace
    limits: Mapping[str, Number]  # of the pruned model, by cost
    level_limits: Mapping[str, Mapping[str, Number]]  # of what is left after each level, by level and cost


def make_plan(config: PruneConfig, denoiser: Denoiser) -> Plan:
    """The plan for a transformer. Raises UserError for a budget out of reach."""
    model = denoiser.config.transformer
    shapes = denoiser.input_shapes(1)
    times = jax.ShapeDtypeStruct((1,), jnp.float32)
    space = SearchSpace(
        units=Units(model, config.group or channel_group(model)),
        costs=counted_costs(model, shapes["latents"], times, shapes["text"], shapes["text_mask"]),
        heads_multiple=config.heads_multiple,
        ffn_multiple=config.ffn_multiple,
        uniform=config.uniform,
        levels=config.levels,
    )
    fractions = {name: share for name, share in dataclasses.asdict(config.budget).items() if share}
    if fractions:
        limits = fraction_limits(space, fractions)
    else:
        limits = {"parameters": target_limits(space, config.ratios)["parameters"]}
    return Plan(space, limits, level_limits(space, limits, config.ratios))


def planned_shapes(plan: Plan) -> tuple[BlockShape, ...]:
    """The blocks of a greedy plan if all units have the same score.

    With uniform widths every greedy plan has these sizes: limits decide how many units go, scores decide which.
    """
    keep = greedy(plan.space, plan.level_limits, lambda keep, units: np.ones(len(units)))
    return kept_shapes(keep, plan.space.units.shapes)


def costs_of(plan: Plan, shapes: tuple[BlockShape, ...]) -> dict[str, Number]:
    """The costs of a model of these blocks."""
    return {name: cost.of(shapes) for name, cost in plan.space.costs.items()}


def sizes_of(shapes: tuple[BlockShape, ...]) -> dict[str, Any]:
    """The number of blocks and their mean widths, whole numbers if all blocks are equal."""
    mean = {kind: float(np.mean([getattr(shape, kind) for shape in shapes])) for kind in WIDTHS}
    return {"blocks": len(shapes)} | {kind: int(x) if x == int(x) else round(x, 1) for kind, x in mean.items()}


def scoring_flops(config: PruneConfig, plan: Plan) -> float:
    """FLOPs of all scoring: of all units once, and of the remaining units after each level of the greedy search.

    An exact score is a forward pass of every clip at every time, and a share of the teacher's, which runs beside each
    `rows` masked models. First-order scores of a level are two forward and a backward pass (worth two) and a backward
    pass for each probe.
    """
    units, shapes = plan.space.units, planned_shapes(plan)
    exact, passes = float(sum(range(len(shapes) + 1, len(units.shapes) + 1))), 0.0  # blocks, after each removal
    for level, scoring in {"head": config.heads, "channel": config.channels}.items():
        if level not in plan.space.levels:
            continue
        scored = [
            getattr(shape, kind) / units.step(kind) for shape in (*units.shapes, *shapes) for kind in LEVELS[level]
        ]
        if scoring == "exact":
            exact += sum(scored)
        else:
            passes += 2 * (4 + 2 * config.probes)
    return (exact * (1 + 1 / config.rows) + passes) * config.clips * config.times * _forward_flops(plan)


def program_flops(config: PruneConfig, plan: Plan) -> float:
    """FLOPs of one program of scoring: `rows` masked models and the teacher on one batch."""
    return config.batch_clips * config.times * (config.rows + 1) * _forward_flops(plan)


def _forward_flops(plan: Plan) -> float:
    return float(plan.space.costs["flops"].of(plan.space.units.shapes))


def named_denoiser(name: str, **checkpoint: Any) -> Denoiser:
    """The transformer of a run, or of a config that is not trained yet: FILE.py:VARIANT or NAME:VARIANT.

    `checkpoint` are arguments of Run.open. Raises UserError for a config of something else.
    """
    if names_config(name):
        values = load_config(name)
        if "text_encoder" not in values or "model" not in values:
            raise UserError(f"{name} is no config of a transformer: name one, as dit:tiny, or a run")
        own = {field.name for field in dataclasses.fields(DenoiserConfig)}
        return Denoiser(from_mapping(DenoiserConfig, {key: value for key, value in values.items() if key in own}))
    return Run.open(storage_path(name), **checkpoint).denoiser


def names_config(name: str) -> bool:
    """True for FILE.py:VARIANT and NAME:VARIANT, False for a run."""
    file = name.partition(":")[0]
    return file.endswith(".py") or not ("/" in name or Path(file).exists())
