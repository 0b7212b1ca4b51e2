"""Ops along axes: sums, norms, softmax, sorting."""

import torch
from torch import Tensor
from torch.nn import functional

from export.mil.ops.elementwise import Kernel


def reduction(function: Kernel) -> Kernel:
    """`function(x, axes, keep_dims)` as an op; without axes it reduces all of them."""

    def reduce(x: Tensor, keep_dims: Tensor, axes: Tensor | None = None) -> Tensor:
        reduced: Tensor = function(x, list(range(x.ndim)) if axes is None else axes.tolist(), bool(keep_dims))
        return reduced

    return reduce


def product(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keep_dims)
    return x


def sort(x: Tensor, axis: Tensor, ascending: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted values and their indices; equal values keep their order."""
    values, indices = torch.sort(x, stable=True, dim=int(axis), descending=not ascending)
    return values, indices


def topk(
    x: Tensor, k: Tensor, axis: Tensor, ascending: Tensor, return_indices: Tensor | None = None, **_: object
) -> Tensor | tuple[Tensor, ...]:
    count = x.shape[int(axis)] if int(k) == -1 else int(k)
    best = tuple(part.narrow(int(axis), 0, count) for part in sort(x, axis, ascending))
    return best if return_indices is None or return_indices else best[0]


def cumsum(x: Tensor, axis: Tensor, exclusive: Tensor, reverse: Tensor) -> Tensor:
    ordered = x.flip(int(axis)) if reverse else x
    sums = ordered.cumsum(int(axis)) - (ordered if exclusive else 0)
    return sums.flip(int(axis)) if reverse else sums


def layer_norm(
    x: Tensor, axes: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    """Normalises over any axes; gamma and beta have the sizes of those."""
    positions = sorted(axis % x.ndim for axis in axes.tolist())
    shape = [size if axis in positions else 1 for axis, size in enumerate(x.shape)]
    variance, mean = torch.var_mean(x, positions, correction=0, keepdim=True)
    return _affine((x - mean) * torch.rsqrt(variance + epsilon), shape, gamma, beta)


def instance_norm(x: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    variance, mean = torch.var_mean(x, list(range(2, x.ndim)), correction=0, keepdim=True)
    return _affine((x - mean) * torch.rsqrt(variance + epsilon), _channels(x), gamma, beta)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
) -> Tensor:
    shape = _channels(x)
    return _affine((x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + epsilon), shape, gamma, beta)


def l2_norm(x: Tensor, epsilon: Tensor) -> Tensor:
    """Normalises over the last three axes."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def _channels(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.ndim - 2)


def _affine(x: Tensor, shape: list[int], gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    x = x if gamma is None else x * gamma.view(shape)
    return x if beta is None else x + beta.view(shape)


KERNELS: dict[str, Kernel] = {
    "argsort": lambda x, axis, ascending: sort(x, axis, ascending)[1],
    "batch_norm": batch_norm,
    "cumsum": cumsum,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "reduce_argmax": lambda x, axis, keep_dims, **_: x.argmax(int(axis), bool(keep_dims)),
    "reduce_argmin": lambda x, axis, keep_dims, **_: x.argmin(int(axis), bool(keep_dims)),
    "reduce_l1_norm": reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "reduce_l2_norm": reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "reduce_log_sum": reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "reduce_log_sum_exp": reduction(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "reduce_max": reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "reduce_mean": reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "reduce_min": reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "reduce_prod": reduction(product),
    "reduce_sum": reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "reduce_sum_square": reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "softmax": lambda x, axis: functional.softmax(x, int(axis)),
    "topk": topk,
}
