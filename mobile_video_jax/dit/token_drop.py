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
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.block import Conditions, DitBlock
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks, unstack_blocks
from mobile_video_jax.nn.attention.config import FULL
from mobile_video_jax.nn.module import apply

DENSE = 2  # first blocks, and last ones, that see all tokens

Kept = Int[Array, "m"]


def check_drop(config: DitConfig, setting: str = "token_drop") -> None:
    """Raises UserError for a network without a middle to pass by, and for blocks that need all tokens of a grid."""
    shapes = config.block_shapes
    middle = range(DENSE, len(shapes) - DENSE)
    if not middle:
        raise UserError(f"{setting} needs more than {2 * DENSE} blocks: leave it out")
    if any(block in middle for skip in config.skips for block in skip):
        fusion = f"(({DENSE - 1},{middle.stop}),)"
        raise UserError(f"{setting} needs skips that pass by the middle, as model.skips={fusion}: leave it out")
    if config.causal or any((shapes[i].kind, shapes[i].resolution) != (FULL, 1) for i in middle):
        raise UserError(f"{setting} needs middle blocks of full attention to all tokens: leave it out")


def fused(config: DitConfig) -> DitConfig:
    """The config with SPRINT's fusion: what went past the middle joins the first of the last blocks."""
    return dataclasses.replace(config, skips=((DENSE - 1, len(config.block_shapes) - DENSE),))


def without_middle(config: DitConfig) -> DitConfig:
    """The config of the first and the last blocks alone. Raises UserError as check_drop does."""
    check_drop(config, "path_drop")
    ends = [*range(DENSE), *range(len(config.block_shapes) - DENSE, len(config.block_shapes))]
    of_ends: dict[str, Any] = {
        name: tuple(values[i] for i in ends)
        for name in ("blocks", "layout", "rope_heads")
        if (values := getattr(config, name))
    }
    skips = tuple((ends.index(source), ends.index(target)) for source, target in config.skips)
    return dataclasses.replace(config, depth=len(ends), skips=skips, **of_ends)


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
