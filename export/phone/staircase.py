"""Layers of several widths of one network in blocks that they share, so that a package stores each block once.

The matrix of a width is the first rows and columns of the whole one's. Formats store equal constants once, not parts of
them: matrices are cut where some width ends, and the blocks of a narrow one are blocks of each wider one.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from export.phone.dit import PhoneDit
from export.phone.layers import pointwise
from export.pytorch import dit as torch_dit
from mobile_video_jax.dit.elastic import MODULATED

Sizes = tuple[int, int]  # rows and columns of a matrix: outputs and inputs
SizesByWidth = tuple[Sizes, ...]  # of one matrix in each width, the narrowest first


class Staircase(nn.Module):
    """A linear layer over channels in blocks: each stripe of rows is a sum of products with stripes of columns."""

    def __init__(self, conv: nn.Conv2d, start: Sizes, by_width: SizesByWidth):
        super().__init__()
        (first, left), (rows, columns) = start, conv.weight.shape[:2]
        matrix = conv.weight.detach()[:, :, 0, 0]
        self.stripes, self.spans = nn.ModuleList(), list[list[slice]]()
        for top, bottom in _stripes(first, first + rows, [outputs for outputs, _ in by_width]):
            wider = [inputs for outputs, inputs in by_width if outputs >= bottom]
            cuts = [(a - left, b - left) for a, b in _stripes(left, left + columns, wider)]
            own = slice(top - first, bottom - first)
            bias = None if conv.bias is None else conv.bias.detach()[own].clone()
            self.spans.append([slice(a, b) for a, b in cuts])
            self.stripes.append(
                nn.ModuleList(
                    pointwise(matrix[own, a:b].clone(), bias if i == 0 else None) for i, (a, b) in enumerate(cuts)
                )
            )

    def forward(self, x: Float[Tensor, "1 c 1 s"]) -> Float[Tensor, "1 o 1 s"]:
        stripes = []
        for convs, spans in zip(self.stripes, self.spans, strict=True):
            assert isinstance(convs, nn.ModuleList)
            parts = [conv(x[:, span]) if len(spans) > 1 else conv(x) for conv, span in zip(convs, spans, strict=True)]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            stripes.append(total)
        return torch.cat(stripes, dim=1) if len(stripes) > 1 else stripes[0]


class Stacked(nn.Module):
    """Layers of the same input, whose outputs are one behind the other."""

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Float[Tensor, "1 c 1 s"]) -> Float[Tensor, "1 o 1 s"]:
        return torch.cat([layer(x) for layer in self.layers], dim=1)


def matrix_sizes(mirrors: Sequence[torch_dit.Dit]) -> dict[str, SizesByWidth]:
    """The sizes of each matrix in each width's mirror, the narrowest first."""
    sizes = [{name: tuple(x.shape) for name, x in mirror.named_parameters() if x.ndim == 2} for mirror in mirrors]
    return {name: tuple(each[name] for each in sizes) for name in sizes[0]}  # type: ignore[misc]


def in_blocks(module: PhoneDit, mirror: torch_dit.Dit, matrix_sizes: dict[str, SizesByWidth]) -> PhoneDit:
    """The module with its linear layers in blocks.

    Those are found by the memory that they share with the mirror of the same width; convolutions over squares of tokens
    stay whole.
    """
    known = {x.untyped_storage().data_ptr(): (name, x) for name, x in mirror.named_parameters() if name in matrix_sizes}
    for path, conv in list(module.named_modules()):
        if not isinstance(conv, nn.Conv2d) or conv.kernel_size != (1, 1) or conv.groups > 1:
            continue
        if (found := known.get(conv.weight.untyped_storage().data_ptr())) is None:
            continue
        name, whole = found
        parent, _, attribute = path.rpartition(".")
        start = divmod(int(conv.weight.storage_offset()), whole.shape[1])
        layer = (
            _modulation(conv, matrix_sizes[name])
            if name == "modulation.weight"
            else Staircase(conv, start, matrix_sizes[name])
        )
        setattr(module.get_submodule(parent), attribute, layer)
    return module


def _modulation(conv: nn.Conv2d, by_width: SizesByWidth) -> Stacked:
    """The layer of MODULATED vectors, each of which has the first rows of the whole network's."""
    weights = conv.weight.detach()[:, :, 0, 0].chunk(MODULATED)
    assert conv.bias is not None
    vectors = [pointwise(*pair) for pair in zip(weights, conv.bias.detach().chunk(MODULATED), strict=True)]
    own = tuple((outputs // MODULATED, inputs) for outputs, inputs in by_width)
    return Stacked([Staircase(vector, (0, 0), own) for vector in vectors])


def _stripes(start: int, stop: int, ends: Sequence[int]) -> list[tuple[int, int]]:
    """The range cut at the ends within it."""
    cuts = sorted({start, stop, *(end for end in ends if start < end < stop)})
    return list(itertools.pairwise(cuts))
