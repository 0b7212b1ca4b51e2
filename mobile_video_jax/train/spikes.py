"""Spikes of the gradient's norm, told by the norms of the steps before (as MaxText's skip_step_on_spikes)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int32

from mobile_video_jax.core.arrays import Scalar

WINDOW = 128  # steps


class NormHistory(NamedTuple):
    """The norms of the last steps that were taken, and how many were."""

    norms: Float[Array, "window"]
    taken: Int32[Array, ""]


def remember_norms() -> optax.GradientTransformation:
    """A transformation that changes no gradient and keeps their norms."""

    def init(_: optax.Params) -> NormHistory:
        return NormHistory(jnp.zeros(WINDOW), jnp.zeros((), jnp.int32))

    def update(
        updates: optax.Updates, state: NormHistory, _: optax.Params | None = None
    ) -> tuple[optax.Updates, NormHistory]:
        norms = state.norms.at[state.taken % WINDOW].set(optax.tree.norm(updates).astype(jnp.float32))
        return updates, NormHistory(norms, state.taken + 1)

    return optax.GradientTransformation(init, update)


def spike_limit(history: NormHistory, sigmas: float) -> Scalar:
    """The norm above which a step is a spike: so many deviations over the mean; infinite until the window is full."""
    limit = jnp.mean(history.norms) + sigmas * jnp.std(history.norms)
    return jnp.where(history.taken >= WINDOW, limit, jnp.inf)


def is_usable(loss: Scalar, norm: Scalar, history: NormHistory | None, sigmas: float) -> jax.Array:
    """True where a step may be taken: loss and gradient are finite, and the norm is no spike."""
    usable = jnp.isfinite(loss) & jnp.isfinite(norm)
    return usable if history is None else usable & (norm <= spike_limit(history, sigmas))
