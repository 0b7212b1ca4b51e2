"""Linen modules as functions of their parameters."""

from typing import Any

import flax.linen as nn
import jax

from mobile_video_jax.core.arrays import Rng


def init(module: nn.Module, rng: Rng, *example: Any) -> Any:
    """Initial parameters for inputs like `example`, boxed with their logical axis names."""
    return module.init(rng, *example)["params"]


def apply(module: nn.Module, params: Any, *args: Any, method: str | None = None) -> Any:
    """Output of the module, or of one of its methods, at these parameters."""
    return module.apply({"params": params}, *args, method=method)


# `apply`, traced once for equal modules and shapes however often a loss calls it.
traced_apply = jax.jit(apply, static_argnums=0)


def partitioned(initializer: nn.initializers.Initializer, axes: tuple[str | None, ...]) -> Any:
    """Attaches logical axis names to a parameter's initializer; parallel/rules.py maps them to the mesh."""
    return nn.with_logical_partitioning(initializer, axes)
