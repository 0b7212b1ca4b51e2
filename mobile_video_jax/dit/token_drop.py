"""Training on some of a clip's tokens: middle blocks see a share of them, others pass by (SPRINT, arXiv 2510.21986).

The first and the last blocks see all tokens. A token that is left out keeps its residual stream, as blocks add to it;
SPRINT has a mask token there instead. Its fusion, a layer that joins what went past the middle with what came through
it, is a skip from the last of the first blocks to the first of the last ones.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from mobile_video_jax.core.arrays import Latents, Rng, Tokens
from mobile_video_jax.dit.block import Conditions, DitBlock
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.middle import DENSE, without_middle
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks, unstack_blocks
from mobile_video_jax.nn.module import apply

Kept = Int[Array, "m"]


def params_without_middle(params: Any, config: DitConfig) -> Any:
    """The parameters of `without_middle(config)`, of those of a network of `config`, stacked as it stacks them."""
    params, last = unstack_blocks(params) if config.scan else dict(params), len(config.block_shapes)
    blocks = [params.pop(f"block_{i}") for i in range(last)]
    ends = params | {f"block_{i}": block for i, block in enumerate(blocks[:DENSE] + blocks[-DENSE:])}
    return stack_blocks(ends, groups(without_middle(config))) if config.scan else ends


def kept_tokens(rng: Rng, frames: int, tokens: int, share: float) -> Kept:
    """Random tokens that middle blocks see, as many in each latent frame of `tokens`, in order; at least one."""
    count = max(1, round(tokens * (1 - share)))
    scores = jax.random.uniform(rng, (frames, tokens))
    within = jnp.sort(jnp.argsort(scores, axis=1)[:, :count], axis=1)
    return (within + tokens * jnp.arange(frames)[:, None]).reshape(-1)


def sparse_velocity(dit: Dit, params: Any, kept: Kept, *inputs: Any, past: Bool[Array, "b"] | None = None) -> Latents:
    """The velocity where the middle blocks see the tokens `kept` alone; `inputs` are those of Dit.

    All tokens of the clips in `past` pass by. Scanned blocks run one by one; each is computed again in the backward
    pass where the network's config says so.
    """
    config, dense = dit.config, dict[str, Tokens]()
    last = len(config.block_shapes) - DENSE

    def intercept(following: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module: Any = context.module
        if not isinstance(module, DitBlock) or not isinstance(module.parent, Dit) or context.method_name != "__call__":
            return following(*args, **kwargs)
        index = int(str(module.name).removeprefix("block_"))
        x, conditions, *others = args
        if not DENSE <= index < last:
            return _computed(module, config, x, conditions, *others)
        if index == DENSE:
            dense["x"], x = x, x[:, kept]
        x = _computed(module, config, x, _of_tokens(conditions, kept), *others)
        if index < last - 1:
            return x
        x = dense["x"].at[:, kept].set(x)
        return x if past is None else jnp.where(past[:, None, None], dense["x"], x)

    network = dit.clone(config=dataclasses.replace(config, scan=False, remat="none"))
    with nn.intercept_methods(intercept):
        velocity: Latents = apply(network, unstack_blocks(params) if config.scan else params, *inputs)
    return velocity


def _computed(module: Any, config: DitConfig, *args: Any) -> Tokens:
    """A block's output, computed again in the backward pass unless the config keeps all."""
    alone = module.clone(parent=None)

    def block(variables: Any, *args: Any) -> Tokens:
        out: Tokens = alone.apply(variables, *args)
        return out

    return (block if config.remat == "none" else jax.checkpoint(block))(module.variables, *args)


def _of_tokens(conditions: Conditions, kept: Kept) -> Conditions:
    """The conditions of some tokens; those of latent frames stay, as every frame has as many."""
    (cos, sin), mask = conditions.rope, conditions.token_mask
    return conditions._replace(rope=(cos[kept], sin[kept]), token_mask=None if mask is None else mask[:, kept])
