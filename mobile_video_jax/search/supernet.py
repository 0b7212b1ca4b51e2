"""A transformer whose blocks are chosen by number: one program evaluates, and trains, every layout of a space."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Rng, Tokens
from mobile_video_jax.dit.block import Conditions, DitBlock, at_full_resolution
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.resolution import Downsampling
from mobile_video_jax.dit.stacking import is_group, stack_blocks, unstack_blocks
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.attention.config import FULL, Grid
from mobile_video_jax.nn.module import apply
from mobile_video_jax.search.space import Choice, Layout

Params = Any
# For each choice the parameters of a block of that choice at each position, stacked.
Variants = Mapping[str, Params]
FULL_CHOICE = Choice(FULL, 1)


class Supernet(Dit):
    """The transformer in which block i is `choices[layout[i]]`, with the parameters `variants[str(choice)]` of i.

    Each block of a lower resolution is a stage of its own, whose learned resampling is zero: stages of several blocks
    compute the same, as averages of repeated tokens are the tokens.
    """

    choices: tuple[Choice, ...] = ()
    layout: Any = None  # Int[Array, "l"]
    variants: Any = None  # Variants

    def _blocks(self, x: Tokens, conditions: Conditions, masks: Masks, grid: Grid) -> Tokens:
        blocks = [_block(self.config, choice, grid) for choice in self.choices]

        def step(x: Tokens, here: tuple[Int[Array, ""], list[Params]]) -> tuple[Tokens, None]:
            number, params = here
            branches = [functools.partial(_run, block, i, conditions) for i, block in enumerate(blocks)]
            return jax.lax.switch(number, branches, x, params), None

        return jax.lax.scan(step, x, (self.layout, [self.variants[str(choice)] for choice in self.choices]))[0]


Block = Callable[[Params, Tokens, Conditions], Tokens]


def _run(block: Block, number: int, conditions: Conditions, x: Tokens, params: list[Params]) -> Tokens:
    return block(params[number], x, conditions)


def _block(config: DitConfig, choice: Choice, grid: Grid) -> Block:
    """A block of a choice, from tokens of the whole grid to such."""
    size = choice.resolution
    inner = (grid[0], grid[1] // size, grid[2] // size)
    module = block_module(config, choice, inner)
    if size == 1:
        return lambda params, x, conditions: apply(module, params, x, conditions)
    kernel = jnp.zeros((size**2 * config.width, config.width))
    down = Downsampling(grid, size, jnp.dtype(config.dtype), parent=None)

    def low_resolution(params: Params, x: Tokens, conditions: Conditions) -> Tokens:
        low = apply(down, {"squares": {"kernel": kernel}}, x, conditions)
        return at_full_resolution(apply(module, params, *low), low.conditions.detail, inner)

    return low_resolution


def block_module(config: DitConfig, choice: Choice, grid: Grid) -> DitBlock:
    """The module of a block of a choice, on a grid of its own resolution. All blocks have the first one's sizes."""
    first = config.block_shapes[0]
    return DitBlock(
        dataclasses.replace(first, kind=choice.kind, resolution=choice.resolution),
        config.head_dim,
        jnp.dtype(config.dtype),
        config.norms,
        config.block_rope_heads[0],
        grid,
        config.chunks,
        parent=None,
    )


def split_params(params: Params) -> tuple[Params, Params]:
    """The parameters without those of the blocks, and those of the blocks, stacked."""
    stacked = stack_blocks(unstack_blocks(params))
    return {name: value for name, value in stacked.items() if not is_group(name)}, stacked["blocks"]["block"]


def layout_denoiser(denoiser: Denoiser, layout: Layout) -> Denoiser:
    """The denoiser with another layout, and as many blocks, none of them scanned."""
    places = tuple((kind, resolution) for kind, resolution in layout)
    model = dataclasses.replace(
        denoiser.config.transformer, depth=len(layout), layout=places, rope_heads=(), scan=False, remat="none"
    )
    return Denoiser(dataclasses.replace(denoiser.config, model=model), denoiser.sampling)


def layout_params(denoiser: Denoiser, layout: Layout, rest: Params, variants: Variants, rng: Rng) -> Params:
    """The parameters of `layout_denoiser`: the rest, each position's variant, and fresh resampling."""
    fresh = nn.unbox(layout_denoiser(denoiser, layout).init(rng))
    blocks = {f"block_{i}": jax.tree.map(lambda x, i=i: x[i], variants[str(choice)]) for i, choice in enumerate(layout)}
    return fresh | dict(rest) | blocks
