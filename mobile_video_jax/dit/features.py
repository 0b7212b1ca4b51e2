"""Hidden features of a transformer: after every block beside the velocity, or after its first blocks alone.

The features of all blocks take as much memory as a network is deep; `velocity_and_errors` never holds them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates, Tokens
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.block import DitBlock, at_full_resolution
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.groups import first_groups, groups
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.model import ERRORS, BackboneOutput, Dit
from mobile_video_jax.dit.stacking import first_block, is_group
from mobile_video_jax.nn.attention.layer import CROSS_LOGITS
from mobile_video_jax.nn.module import traced_apply

Features = Float[Array, "l b n d"]
CrossLogits = Float[Array, "b n s"]  # of cross-attention, from each token to each text state


def velocity_and_features(dit: Dit, params: Any, *inputs: Any) -> tuple[Latents, Features]:
    """Velocity, and the residual stream after each of the l blocks. `inputs` are those of Dit."""
    velocity, state = dit.apply({"params": params}, *inputs, mutable="intermediates")
    return velocity, _residuals(dit, state["intermediates"])


def velocity_and_maps(dit: Dit, params: Any, *inputs: Any) -> tuple[Latents, tuple[Float[Array, "b t h w d"], ...]]:
    """Velocity, and the residual stream after each block as a map on the latent grid."""
    velocity, residuals = velocity_and_features(dit, params, *inputs)
    return velocity, tuple(residuals.reshape(*residuals.shape[:2], *velocity.shape[1:4], -1))


def _residuals(dit: Dit, intermediates: Any) -> Float[Array, "l b *rest"]:
    """What each block recorded as its residual, in order."""
    if dit.config.scan:
        scanned = [intermediates[group.name]["block"]["residual"][0] for group in groups(dit.config)]
        return scanned[0] if len(scanned) == 1 else jnp.concatenate(scanned)
    depth = len(dit.config.block_shapes)
    return jnp.stack([intermediates[f"block_{i}"]["residual"][0] for i in range(depth)])


def velocity_and_errors(
    dit: Dit, params: Any, error: Callable[[Tokens], Float[Array, "b"]], *inputs: Any
) -> tuple[Latents, Float[Array, "l b"]]:
    """Velocity, and `error` of the residual stream after each of the l blocks, of which one is held at a time."""

    def observe(block: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        x = block(*args, **kwargs)
        if isinstance(context.module, DitBlock) and context.method_name == "__call__":
            detail = (args[1] if len(args) > 1 else kwargs["conditions"]).detail
            context.module.sow(ERRORS, "residual", error(at_full_resolution(x, detail, context.module.grid)))
        return x

    with nn.intercept_methods(observe):
        velocity, state = dit.apply({"params": params}, *inputs, mutable=ERRORS)
    return velocity, _residuals(dit, state[ERRORS])


def velocity_and_cross_logits(dit: Dit, params: Any, *inputs: Any) -> tuple[Latents, CrossLogits]:
    """Velocity, and the logits of cross-attention, a mean over heads and over the blocks of the whole resolution."""
    velocity, state = dit.apply({"params": params}, *inputs, mutable=CROSS_LOGITS)
    tokens = math.prod(velocity.shape[1:4])
    logits = [x.reshape(-1, *x.shape[-3:]) for x in jax.tree.leaves(state[CROSS_LOGITS]) if x.shape[-2] == tokens]
    return velocity, jnp.mean(jnp.concatenate(logits), axis=0)


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
    return Backbone(first_groups(config, count))


def backbone_params(backbone: Backbone, params: Any) -> Any:
    """The backbone's parameters out of the whole transformer's: the same arrays, or a slice of scanned ones."""
    if not backbone.config.scan:
        return params
    kept = groups(backbone.config)
    sources = sorted((name for name in params if is_group(name)), key=first_block)
    scanned = {
        group.name: jax.tree.map(lambda x, length=group.length: x[:length], params[source])
        for group, source in zip(kept, sources, strict=False)
    }
    return {**{name: value for name, value in params.items() if not is_group(name)}, **scanned}


def block_params(params: Any, index: int) -> Any:
    """The parameters of one block of a whole transformer's."""
    if f"block_{index}" in params:
        return params[f"block_{index}"]
    name = max((name for name in params if is_group(name) and first_block(name) <= index), key=first_block)
    return jax.tree.map(lambda x: x[index - first_block(name)], params[name]["block"])


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
