"""Linen modules as functions of their parameters."""

from typing import Any

import flax.linen as nn

from mobile_video_jax.core.arrays import Rng


def init(module: nn.Module, rng: Rng, *example: Any) -> Any:
    """The module's fresh parameters, carrying their logical axis names."""
    return module.init(rng, *example)["params"]


def apply(module: nn.Module, params: Any, *args: Any, method: str | None = None) -> Any:
    """The module's value (or that of one of its methods) at given parameters."""
    return module.apply({"params": params}, *args, method=method)


def partitioned(initializer: nn.initializers.Initializer, axes: tuple[str | None, ...]) -> Any:
    """The initializer of a parameter that carries logical axis names; parallel/rules.py maps them to the mesh."""
    return nn.with_logical_partitioning(initializer, axes)
