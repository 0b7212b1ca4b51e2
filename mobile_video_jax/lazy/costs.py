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
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.step_table import MODULES, computed_shares
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.nn.module import apply, init

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

    `forward` are the costs of one pass without guidance, Denoiser.inspect().
    """
    sampling = denoiser.sampling
    guided = sampling.guidance != 1
    passes = sampling.steps * (1 + guided)
    shares = dict.fromkeys(KINDS, 1.0)
    if sampling.reuse:
        shares = {kind: module_costs(denoiser, kind).share(sampling.reuse, guided=guided) for kind in KINDS}
    return {
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "reuse": sampling.reuse,
        "flops": passes * shares["flops"] * forward["flops"]["total"],
        "phone_seconds": passes * shares["latency"] * forward["phone_seconds"],
    }


@functools.lru_cache(32)
def module_costs(denoiser: Denoiser, kind: str) -> ModuleCosts:
    """The costs of a denoiser's network: `flops`, or `latency` in seconds (cost/phone)."""
    model = as_transformer(denoiser.config.model)
    dit = Dit(dataclasses.replace(model, scan=False, remat="none", dtype="bfloat16"))
    inputs = jax.eval_shape(denoiser.zero_inputs)
    whole, by_module = KINDS[kind](dit, inputs)
    depth = len(model.block_shapes)
    return ModuleCosts(whole, np.array([[by_module[i, name] for name in MODULES] for i in range(depth)], np.float64))


def _flops(dit: Dit, inputs: Any) -> tuple[float, dict[Any, float]]:
    params = jax.eval_shape(lambda *inputs: init(dit, jax.random.key(0), *inputs), *inputs)
    counts = count_flops(functools.partial(apply, dit), params, *inputs)
    return float(sum(counts.values())), _sums(counts)


def _latency(dit: Dit, inputs: Any) -> tuple[float, dict[Any, float]]:
    ops = ops_of_network(dit, *inputs)
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


KINDS: dict[str, Callable[[Dit, Any], tuple[float, dict[Any, float]]]] = {"flops": _flops, "latency": _latency}
