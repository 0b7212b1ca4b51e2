"""Costs of a transformer's modules, counted from shapes: FLOPs and estimated seconds on a phone."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64

from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.cost.phone.roofline import call_seconds, seconds_by
from mobile_video_jax.cost.phone.trace import ops_of_call, variables_of
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.step_table import MODULES, across_chunks, computed_shares, of_whole_clips
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.nn.stream import STREAM

REST = (-1, "")


@dataclasses.dataclass(frozen=True)
class ModuleCosts:
    """The cost of one evaluation for one clip without guidance: of the whole, and of each module of MODULES."""

    whole: float
    modules: Float64[np.ndarray, "l 2"]

    def share(self, table: Sequence[str], *, guided: bool) -> float:
        """The share of the cost of all steps that a table leaves."""
        saved = ((1 - computed_shares(table, guided=guided)) * self.modules).sum()
        return float(1 - saved / (len(table) * self.whole))


def sampling_costs(denoiser: Denoiser, forward: Mapping[str, Any]) -> dict[str, Any]:
    """FLOPs and estimated phone seconds of sampling a clip as a denoiser is sampled, by its table where it has one.

    `forward` are the costs of one pass without guidance, Denoiser.inspect(). `stream_shares` are what a table across
    chunks leaves of a stream's costs, which a whole clip has none of.
    """
    sampling = denoiser.sampling
    guided = sampling.guidance != 1
    passes = sampling.steps * (1 + guided)
    shares = dict.fromkeys(KINDS, 1.0)
    streamed: dict[str, float] = {}
    if sampling.reuse:
        clips = of_whole_clips(sampling.reuse)
        shares = {kind: module_costs(denoiser, kind).share(clips, guided=guided) for kind in KINDS}
    if across_chunks(sampling.reuse):
        costs = {kind: stream_costs(denoiser, kind, sampling.steps) for kind in KINDS}
        streamed = {kind: costs[kind].share(sampling.reuse, guided=guided) for kind in KINDS}
    return {
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "reuse": sampling.reuse,
        "flops": passes * shares["flops"] * forward["flops"]["total"],
        "phone_seconds": passes * shares["latency"] * forward["phone_seconds"],
        **({"stream_shares": streamed} if streamed else {}),
    }


@functools.lru_cache(32)
def module_costs(denoiser: Denoiser, kind: str) -> ModuleCosts:
    """The costs of a denoiser's network: `flops`, or `latency` in seconds (cost/phone)."""
    dit, inputs = _network(denoiser), jax.eval_shape(denoiser.zero_inputs)
    return _costs_of(kind, dit, dit.apply, variables_of(dit, *inputs), *inputs)


@functools.lru_cache(32)
def stream_costs(denoiser: Denoiser, kind: str, steps: int) -> ModuleCosts:
    """The costs of one of `steps` evaluations of a stream's chunk, with its part of the pass that renews the state."""
    dit, (latents, *others) = _network(denoiser), jax.eval_shape(denoiser.zero_inputs)

    def of_frames(frames: int) -> tuple[Any, ...]:
        return jax.ShapeDtypeStruct((1, frames, *latents.shape[2:]), latents.dtype), *others

    first, later = of_frames(1), of_frames(dit.config.stream_chunk)
    weights = variables_of(dit, *first)
    state = jax.eval_shape(lambda weights, *inputs: dit.apply(weights, *inputs, mutable=STREAM)[1], weights, *first)

    def behind(weights: Any, state: Any, *inputs: Any) -> Any:
        return dit.apply({**weights, **state}, *inputs)

    costs = _costs_of(kind, dit, behind, weights, state, *later)
    return dataclasses.replace(costs, whole=costs.whole * (steps + 1) / steps)


def _network(denoiser: Denoiser) -> Dit:
    model = as_transformer(denoiser.config.model)
    return Dit(dataclasses.replace(model, scan=False, remat="none", dtype="bfloat16"))


def _costs_of(kind: str, dit: Dit, function: Callable[..., Any], weights: Any, *inputs: Any) -> ModuleCosts:
    """The costs of function(weights, *inputs), a call of the network, from shapes."""
    whole, by_module = KINDS[kind](function, weights, *inputs)
    blocks = range(len(dit.config.block_shapes))
    return ModuleCosts(whole, np.array([[by_module[i, name] for name in MODULES] for i in blocks], np.float64))


def _flops(function: Callable[..., Any], weights: Any, *inputs: Any) -> tuple[float, dict[Any, float]]:
    counts = count_flops(function, weights, *inputs)
    return float(sum(counts.values())), _sums(counts)


def _latency(function: Callable[..., Any], weights: Any, *inputs: Any) -> tuple[float, dict[Any, float]]:
    ops = ops_of_call(function, weights, *inputs)
    return call_seconds(ops), _sums(seconds_by(ops, lambda op: op.part))


def _sums(values: Mapping[str, float] | Mapping[str, int]) -> dict[Any, float]:
    """The sums by block and module of values by the path of what they are of."""
    sums: collections.defaultdict[Any, float] = collections.defaultdict(float)
    for path, value in values.items():
        sums[_module_of(path)] += value
    return sums


def _module_of(path: str) -> tuple[int, str]:
    names = path.split("/")
    block = next((int(name[6:]) for name in names if name.startswith("block_")), -1)
    return next(((block, name) for name in names if name in MODULES), REST)


KINDS: dict[str, Callable[..., tuple[float, dict[Any, float]]]] = {"flops": _flops, "latency": _latency}
