"""Softmax attention of a grid's cells to their neighbours: static slices, of which cells at an edge have fewer."""

import collections
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mobile_video_jax.nn.attention.layer import attend


class Span(NamedTuple):
    """A cell along one axis: its queries, and the keys of the cells around it."""

    queries: slice
    keys: slice


Spans = tuple[Span, ...]  # of the cells along one axis, in order


def spans(length: int, size: int, radius: int) -> Spans:
    """Cells of `size` positions, each with `radius` cells before and behind it; an axis may be shorter than a cell."""
    size = min(size, length)
    return tuple(
        Span(slice(i, i + size), slice(max(i - radius * size, 0), min(i + (1 + radius) * size, length)))
        for i in range(0, length, size)
    )


def neighbour_attend(
    q: Float[Array, "b t y x h d"],
    k: Float[Array, "b u y x h d"],
    v: Float[Array, "b u y x h d"],
    axes: tuple[Spans, Spans, Spans],
    mask: Bool[Array, "b u y x"] | None = None,
) -> Float[Array, "b t y x h d"]:
    """`attend` for each cell of queries, to the keys that `axes` name for it; keys where `mask` is False are ignored.

    Cells with equally many keys are computed together, as elements of one batch behind its clips: a batch that is
    sharded stays so.
    """
    cells = list(itertools.product(*axes))
    groups: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
    for i, cell in enumerate(cells):
        groups[tuple(span.keys.stop - span.keys.start for span in cell)].append(i)
    outputs: dict[int, Float[Array, "b n h d"]] = {}
    for members in groups.values():
        queries = _batched(q, [[span.queries for span in cells[i]] for i in members])
        slices = [[span.keys for span in cells[i]] for i in members]
        valid = None if mask is None else _batched(mask, slices)[:, None]
        out = attend(queries, _batched(k, slices), _batched(v, slices), valid)
        out = out.reshape(len(q), len(members), *out.shape[1:])
        outputs |= {i: out[:, j] for j, i in enumerate(members)}
    return _untiled(jnp.stack([outputs[i] for i in range(len(cells))], axis=1), axes)


def _batched(x: Shaped[Array, "b t y x *rest"], cells: Sequence[Sequence[slice]]) -> Shaped[Array, "cells n *rest"]:
    """Slices of x as elements of a batch, with their positions in one axis."""
    parts = jnp.stack([x[:, *cell].reshape(len(x), -1, *x.shape[4:]) for cell in cells], axis=1)
    return parts.reshape(-1, *parts.shape[2:])


def _untiled(cells: Float[Array, "b c n h d"], axes: tuple[Spans, Spans, Spans]) -> Float[Array, "b t y x h d"]:
    """The grid of cells that are listed row-major, as are the positions in them."""
    counts, sizes = zip(*((len(spans), spans[0].queries.stop) for spans in axes), strict=True)
    b, _, _, h, d = cells.shape
    grid = jnp.transpose(cells.reshape(b, *counts, *sizes, h, d), (0, 1, 4, 2, 5, 3, 6, 7, 8))
    return grid.reshape(b, *map(math.prod, zip(counts, sizes, strict=True)), h, d)
