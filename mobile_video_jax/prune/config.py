"""Settings of pruning."""

import dataclasses
from typing import Annotated, Literal

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, PositiveShare, Range, Seed, Share, Size, SizeOrZero
from mobile_video_jax.distill.config import KdWeights

Level = Literal["block", "head", "channel"]
Scoring = Literal["exact", "taylor"]
Search = Literal["greedy", "cross_level", "joint", "pairs"]


@dataclasses.dataclass(frozen=True)
class Budget(Config):
    """Largest shares of the model's own costs (prune/costs.py); 0 sets no limit."""

    parameters: Share = 0.0  # share of the parameters
    flops: Share = 0.0  # share of the FLOPs of one forward pass
    activations: Share = 0.0  # share of the bytes of activations
    latency: Share = 0.0  # share of the estimated time on a phone


@dataclasses.dataclass(frozen=True)
class Ratios(Config):
    """Shares of each level that are kept; the defaults are arXiv 2507.13343's."""

    block: PositiveShare = 20 / 28  # of the blocks
    head: PositiveShare = 20 / 32  # of each block's attention heads
    channel: PositiveShare = 6144 / 8192  # of each block's FFN channels


@dataclasses.dataclass(frozen=True)
class PruneConfig(Config):
    """Settings of pruning: how much is removed, how units are scored and how a plan is searched."""

    budget: Budget = dataclasses.field(default_factory=Budget)  # limits; without any, parameters as `ratios` leave
    ratios: Ratios = dataclasses.field(default_factory=Ratios)  # also how a budget is divided between the levels
    levels: Annotated[tuple[Level, ...], Range(1, 3)] = ("block", "head", "channel")  # what is pruned, in this order
    uniform: bool = True  # all blocks keep the same widths
    heads_multiple: Size = 1  # heads of a kept block are a multiple of this
    ffn_multiple: Size = 64  # FFN channels of a kept block are a multiple of this
    group: SizeOrZero = 0  # neighbouring FFN channels that are scored together; 0: as many as suit the model
    search: Search = "greedy"  # which plan is sliced: greedy, level by level; cross_level; joint; pairs
    score: Literal["kd", "magnitude", "random"] = "kd"  # by the rise of the distillation loss, by weights, by chance
    heads: Scoring = "exact"  # scores of heads: exact, or to first order (taylor)
    channels: Scoring = "exact"  # scores of FFN channels: exact, or to first order (taylor)
    probes: Count = 8  # random vectors of a first-order score
    kd: KdWeights = dataclasses.field(default_factory=KdWeights)  # the loss that scores are a rise of
    clips: Count = 64  # clips that the loss is a mean over
    times: Count = 4  # times that the loss is a mean over
    batch_clips: Count = 8  # clips in one program
    rows: Count = 8  # masked models in one program
    seed: Seed = 0  # of noise, probes and random scores

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score != "kd" and self.search != "greedy":
            raise UserError(f"search '{self.search}' needs the scores of score=kd: use search=greedy")
        if self.search == "pairs" and not self.uniform:
            raise UserError("search 'pairs' tries all uniform widths: use uniform=True or search=cross_level")
        if self.clips % self.batch_clips:
            raise UserError(f"{self.clips} clips are no whole batches of {self.batch_clips}: change batch_clips")
