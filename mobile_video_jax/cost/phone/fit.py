"""The fit of the two shares of the roofline to published times, and its errors on networks that were held out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from mobile_video_jax.cost.phone.ops import Op
from mobile_video_jax.cost.phone.roofline import activation_bytes
from mobile_video_jax.cost.phone.table import ASSUMED, BESIDE, CHIPS, FITTED, Assumptions, Figure

Networks = Mapping[str, Sequence[Op]]


def calibrate(networks: Networks) -> dict[str, Any]:
    """The shares fitted to FITTED, and every figure's estimate; `held_out` is by a fit without the figure's network."""
    costs = {name: _costs(ops) for name, ops in networks.items()}
    fitted = fit(costs, FITTED)
    rows = []
    for name in dict.fromkeys(figure.network for figure in FITTED):
        others = fit(costs, [figure for figure in FITTED if figure.network != name])
        rows += [_row(costs, figure, others, fitted) for figure in FITTED if figure.network == name]
    ratios = [row["held_out"] / row["published"] for row in rows]
    return {
        "compute": fitted.compute,
        "memory": fitted.memory,
        "held_out_ratio": [min(ratios), max(ratios)],
        "figures": rows,
        "beside": [_row(costs, figure, fitted, fitted) for figure in BESIDE],
    }


def fit(costs: Mapping[str, np.ndarray], figures: Sequence[Figure]) -> Assumptions:
    """The shares of least squared log-ratios of estimated to published seconds; every network has the same weight."""
    names = [figure.network for figure in figures]

    def residuals(logarithms: np.ndarray) -> list[float]:
        compute, memory = np.exp(logarithms)
        shares = dataclasses.replace(ASSUMED, compute=compute, memory=memory)
        return [np.log(estimate(costs, f, shares) / f.seconds) / names.count(f.network) ** 0.5 for f in figures]

    compute, memory = np.exp(least_squares(residuals, np.log([0.5, 0.7])).x)
    return dataclasses.replace(ASSUMED, compute=float(compute), memory=float(memory))


def estimate(costs: Mapping[str, np.ndarray], figure: Figure, assumptions: Assumptions) -> float:
    """roofline.call_seconds of a figure's network on its chip, all ops at once."""
    device, (flops, traffic) = CHIPS[figure.chip], costs[figure.network].T
    longer = np.maximum(flops / (assumptions.compute * device.flops), traffic / (assumptions.memory * device.bandwidth))
    return float(longer.sum()) + assumptions.call


def _costs(ops: Sequence[Op]) -> np.ndarray:
    """FLOPs and bytes of each op [ops, 2]."""
    return np.array([(op.flops, op.weight_bytes + activation_bytes(op)) for op in ops], np.float64)


def _row(costs: Mapping[str, np.ndarray], figure: Figure, others: Assumptions, fitted: Assumptions) -> dict[str, Any]:
    return {
        "network": figure.network,
        "chip": figure.chip,
        "published": figure.seconds,
        "fitted": estimate(costs, figure, fitted),
        "held_out": estimate(costs, figure, others),
        "source": figure.source,
    }
