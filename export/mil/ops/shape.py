"""Ops that move values without changing them: reshaping, joining, slicing, padding."""

import torch
from torch import Tensor
from torch.nn import functional

from export.mil.ops.elementwise import Kernel


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """Reshapes; a 0 keeps the size of x's axis, counted from the last one, and -1 takes the rest."""
    sizes = shape.tolist()
    old = [1] * (len(sizes) - x.ndim) + list(x.shape[max(x.ndim - len(sizes), 0) :])
    return x.reshape([size or same for size, same in zip(sizes, old, strict=True)])


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """Adds axes of size 1; their positions are in the result, negative ones from its end."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def concat(values: tuple[Tensor, ...], axis: Tensor, interleave: Tensor) -> Tensor:
    if interleave:
        position = int(axis) % values[0].ndim
        return torch.stack(values, position + 1).flatten(position, position + 1)
    return torch.cat(values, int(axis))


def split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, split_sizes.tolist(), int(axis))
    assert num_splits is not None
    return torch.split(x, x.shape[int(axis)] // int(num_splits), int(axis))


def slices(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> list[Tensor]:
    """The positions of a slice on each axis. A masked end is open; a squeezed axis has `begin` alone."""
    selected = []
    for axis, (first, last) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        step = 1 if stride is None else int(stride[axis])
        start = None if begin_mask is not None and begin_mask[axis] else first
        stop = None if end_mask is not None and end_mask[axis] else last
        if squeeze_mask is not None and squeeze_mask[axis]:
            positions = [first % x.shape[axis]]
        else:
            positions = list(range(*slice(start, stop, step).indices(x.shape[axis])))
        selected.append(torch.tensor(positions, dtype=torch.int64))
    return selected


def slice_by_index(x: Tensor, begin: Tensor, end: Tensor, **options: Tensor) -> Tensor:
    squeeze = options.get("squeeze_mask")
    for axis, positions in enumerate(slices(x, begin, end, **options)):
        if len(positions) != x.shape[axis] or options.get("stride") is not None:
            x = x.index_select(axis, positions)
    return x if squeeze is None else squeezed(x, torch.nonzero(squeeze).flatten())


def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """Slices from `begin`; a size of -1 takes the rest."""
    for axis, (start, length) in enumerate(zip(begin.tolist(), size.tolist(), strict=True)):
        start %= x.shape[axis]
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


def slice_update(x: Tensor, update: Tensor, begin: Tensor, end: Tensor, **options: Tensor) -> Tensor:
    selected = slices(x, begin, end, **options)
    result = x.clone()
    result[torch.meshgrid(*selected, indexing="ij")] = update.reshape([len(positions) for positions in selected])
    return result


def squeezed(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes.tolist())


def pad(x: Tensor, pad: Tensor, mode: str, constant_val: Tensor) -> Tensor:
    """Pads by amounts (before, after) of the last axes, first axis first."""
    amounts = pad.tolist()
    first = x.ndim - len(amounts) // 2
    if mode == "constant":
        reversed_pairs = [amount for pair in zip(amounts[-2::-2], amounts[::-2], strict=True) for amount in pair]
        return functional.pad(x, reversed_pairs, value=constant_val.item())
    for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), start=first):
        last = x.shape[axis] - 1
        positions = torch.arange(-before, last + 1 + after)
        inside = last - (last - positions.abs()).abs() if mode == "reflect" else positions.clamp(0, last)
        x = x.index_select(axis, inside)
    return x


def gather(x: Tensor, indices: Tensor, axis: Tensor, batch_dims: Tensor | None = None, **_: Tensor) -> Tensor:
    """Slices of `axis` at the indices, in their shape; the first `batch_dims` axes of both are a batch."""
    batch = 0 if batch_dims is None else int(batch_dims)
    dim = int(axis) % x.ndim
    if batch:
        rest = torch.tensor(dim - 1), torch.tensor(batch - 1)
        return torch.stack([gather(part, index, *rest) for part, index in zip(x, indices, strict=True)])
    positions = torch.where(indices < 0, indices + x.shape[dim], indices)
    selected = x.index_select(dim, positions.flatten().long())
    return selected.reshape(*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :])


def gather_along_axis(x: Tensor, indices: Tensor, axis: Tensor, **_: Tensor) -> Tensor:
    positions = torch.where(indices < 0, indices + x.shape[int(axis)], indices)
    return x.gather(int(axis), positions.long())


def depth_to_space(x: Tensor, block_size: Tensor) -> Tensor:
    """Moves channels to blocks of pixels. A block's pixels come before channels, in pixel_shuffle after them."""
    n, c, h, w = x.shape
    size = int(block_size)
    blocks = x.view(n, size, size, c // size**2, h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // size**2, h * size, w * size)


def space_to_depth(x: Tensor, block_size: Tensor) -> Tensor:
    n, c, h, w = x.shape
    size = int(block_size)
    blocks = x.view(n, c, h // size, size, w // size, size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * size**2, h // size, w // size)


KERNELS: dict[str, Kernel] = {
    "concat": concat,
    "depth_to_space": depth_to_space,
    "expand_dims": expand_dims,
    "fill": lambda shape, value: torch.full(shape.tolist(), value.item(), dtype=value.dtype),
    "fill_like": lambda ref_tensor, value: torch.full(ref_tensor.shape, value.item(), dtype=value.dtype),
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "pad": pad,
    "pixel_shuffle": lambda x, upscale_factor: functional.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: functional.pixel_unshuffle(x, int(downscale_factor)),
    "range_1d": lambda start, end, step: torch.arange(start.item(), end.item(), step.item()),
    "reshape": reshape,
    "reverse": lambda x, axes=None: x.flip(list(range(x.ndim)) if axes is None else axes.tolist()),
    "shape": lambda x: torch.tensor(x.shape),
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
    "space_to_depth": space_to_depth,
    "split": split,
    "squeeze": squeezed,
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "tile": lambda x, reps: x.tile(reps.tolist()),
    "transpose": lambda x, perm: x.permute(perm.tolist()),
}
