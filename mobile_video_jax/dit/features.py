"""Hidden features of a transformer: after every block beside the velocity, or after its first blocks alone.

The features of all blocks take as much memory as a network is deep; `velocity_and_errors` never holds them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates, Tokens
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.block import DitBlock
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.model import ERRORS, BackboneOutput, Dit
from mobile_video_jax.nn.attention.layer import CROSS_LOGITS
from mobile_video_jax.nn.module import traced_apply

Features = Float[Array, "l b n d"]
CrossLogits = Float[Array, "b n s"]  # of cross-attention, from each token to each text state


def velocity_and_features(dit: Dit, params: Any, *inputs: Any) -> tuple[Latents, Features]:
    """Velocity, and the residual stream after each of the l blocks. `inputs` are those of Dit."""
    velocity, state = dit.apply({"params": params}, *inputs, mutable="intermediates")
    return velocity, _residuals(dit, state["intermediates"])


def _residuals(dit: Dit, intermediates: Any) -> Features:
    if dit.config.scan:
        residuals: Features = intermediates["blocks"]["block"]["residual"][0]
        return residuals
    depth = len(dit.config.block_shapes)
    return jnp.stack([intermediates[f"block_{i}"]["residual"][0] for i in range(depth)])


def velocity_and_errors(
    dit: Dit, params: Any, error: Callable[[Tokens], Float[Array, "b"]], *inputs: Any
) -> tuple[Latents, Float[Array, "l b"]]:
    """Velocity, and `error` of the residual stream after each of the l blocks, of which one is held at a time."""

    def observe(block: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        x = block(*args, **kwargs)
        if isinstance(context.module, DitBlock) and context.method_name == "__call__":
            context.module.sow(ERRORS, "residual", error(x))
        return x

    with nn.intercept_methods(observe):
        velocity, state = dit.apply({"params": params}, *inputs, mutable=ERRORS)
    errors = state[ERRORS]
    if dit.config.scan:
        return velocity, errors["blocks"]["block"]["residual"][0]
    return velocity, jnp.stack([errors[f"block_{i}"]["residual"][0] for i in range(len(dit.config.block_shapes))])


def velocity_and_cross_logits(dit: Dit, params: Any, *inputs: Any) -> tuple[Latents, CrossLogits]:
    """Velocity, and the logits of cross-attention, a mean over blocks and heads."""
    velocity, state = dit.apply({"params": params}, *inputs, mutable=CROSS_LOGITS)
    logits = jax.tree.leaves(state[CROSS_LOGITS])
    stacked = logits[0] if dit.config.scan else jnp.stack(logits)
    return velocity, jnp.mean(stacked, axis=0)


class Backbone(Dit):
    """A Dit without its output layer: returns the residual stream after its last block."""

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        latent_mask: LatentMask | None = None,
        masks: Masks = ALL,
    ) -> BackboneOutput:
        return self.backbone(x_t, t, text, text_mask, latent_mask, masks)


def first_blocks(config: DitConfig, count: int) -> Backbone:
    """The backbone of a transformer's first `count` blocks. Raises UserError unless 1 <= count <= depth."""
    depth = len(config.block_shapes)
    if not 1 <= count <= depth:
        raise UserError(f"a transformer of {depth} blocks has no first {count}: use trunk_blocks from 1 to {depth}")
    return Backbone(
        dataclasses.replace(config, depth=count, blocks=config.blocks[:count], rope_heads=config.rope_heads[:count])
    )


def backbone_params(backbone: Backbone, params: Any) -> Any:
    """The backbone's parameters out of the whole transformer's: the same arrays, or a slice of scanned ones."""
    if not backbone.config.scan:
        return params
    return {**params, "blocks": jax.tree.map(lambda x: x[: backbone.config.depth], params["blocks"])}


def block_params(params: Any, index: int) -> Any:
    """The parameters of one block of a whole transformer's."""
    if "blocks" in params:
        return jax.tree.map(lambda x: x[index], params["blocks"]["block"])
    return params[f"block_{index}"]


def tapped_features(backbone: Backbone, taps: tuple[int, ...], params: Any, *inputs: Any) -> tuple[BackboneOutput, ...]:
    """The backbone's output with the residual stream after each block of `taps`, numbers from 1."""
    if taps == (backbone.config.depth,):
        return (traced_apply(backbone, params, *inputs),)
    output, residuals = _traced_residuals(backbone, params, *inputs)
    return tuple(output._replace(x=residuals[tap - 1]) for tap in taps)


@functools.partial(jax.jit, static_argnums=0)
def _traced_residuals(backbone: Backbone, params: Any, *inputs: Any) -> tuple[BackboneOutput, Features]:
    output, state = backbone.apply({"params": params}, *inputs, mutable="intermediates")
    return output, _residuals(backbone, state["intermediates"])
