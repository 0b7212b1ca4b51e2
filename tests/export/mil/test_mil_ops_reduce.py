"""Sums, norms, sorting, pooling and resampling equal PyTorch's: negative axes, ties, paddings, modes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mobile_video_jax.core.errors import UserError
from tests.export.mil.mil_programs import Case, check

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 6, 5), np.float32)
POSITIVE = np.abs(X) + 0.1
TIES = np.round(X)
GAMMA, BETA, MEAN = RNG.standard_normal((3, 4), np.float32)
VARIANCE = POSITIVE[0, :, 0, 0]

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "reduce_l1_norm": lambda x: x.abs().sum((1, 3)),
    "reduce_l2_norm": lambda x: torch.linalg.vector_norm(x, dim=(1, 3)),
    "reduce_log_sum": lambda x: x.sum((1, 3)).log(),
    "reduce_log_sum_exp": lambda x: x.exp().sum((1, 3)).log(),
    "reduce_max": lambda x: x.amax((1, 3)),
    "reduce_mean": lambda x: x.mean((1, 3)),
    "reduce_min": lambda x: x.amin((1, 3)),
    "reduce_prod": lambda x: x.prod(3).prod(1),
    "reduce_sum": lambda x: x.sum((1, 3)),
    "reduce_sum_square": lambda x: (x * x).sum((1, 3)),
}


def channels(values: np.ndarray) -> Tensor:
    return torch.tensor(values)[:, None, None]


def positions(x: Tensor, descending: bool = True) -> Tensor:
    """Of equal values the earlier comes first."""
    return torch.tensor(np.argsort(-x.numpy() if descending else x.numpy(), axis=-2, kind="stable"))


CASES: list[Case] = [
    *((name, {"x": POSITIVE}, {"axes": [-1, 1]}, function) for name, function in REDUCTIONS.items()),
    *(
        (name, {"x": POSITIVE}, {"axes": [-1, 1], "keep_dims": True}, lambda x, f=function: f(x)[:, None, :, None])
        for name, function in REDUCTIONS.items()
    ),
    ("reduce_sum", {"x": X}, {}, lambda x: x.sum()),
    ("reduce_argmax", {"x": TIES}, {"axis": -1}, lambda x: torch.tensor(x.numpy().argmax(-1))),
    (
        "reduce_argmin",
        {"x": TIES},
        {"axis": 1, "keep_dims": True},
        lambda x: torch.tensor(x.numpy().argmin(1)[:, None]),
    ),
    ("softmax", {"x": X}, {"axis": -3}, lambda x: x.exp() / x.exp().sum(1, keepdim=True)),
    ("cumsum", {"x": X}, {"axis": -1}, lambda x: x.cumsum(-1)),
    (
        "cumsum",
        {"x": X},
        {"axis": 1, "exclusive": True, "reverse": True},
        lambda x: torch.stack([x[:, place + 1 :].sum(1) for place in range(4)], 1),
    ),
    ("argsort", {"x": TIES}, {"axis": -2}, positions),
    ("argsort", {"x": TIES}, {"axis": -2, "ascending": True}, lambda x: positions(x, descending=False)),
    ("topk", {"x": TIES}, {"k": 2, "axis": 2}, lambda x: (x.sort(2, True)[0][:, :, :2], positions(x)[:, :, :2])),
    ("topk", {"x": TIES}, {"k": 3, "axis": 2, "return_indices": False}, lambda x: x.sort(2, True)[0][:, :, :3]),
    (
        "layer_norm",
        {"x": X},
        {"axes": [-1, 1], "gamma": X[0, :, 0], "beta": X[1, :, 0], "epsilon": 0.1},
        lambda x: functional.layer_norm(
            x.transpose(1, 2), (4, 5), torch.tensor(X[0, :, 0]), torch.tensor(X[1, :, 0]), 0.1
        ).transpose(1, 2),
    ),
    ("layer_norm", {"x": X}, {"axes": [-1], "epsilon": 0.1}, lambda x: functional.layer_norm(x, (5,), eps=0.1)),
    (
        "instance_norm",
        {"x": X},
        {"gamma": GAMMA, "beta": BETA, "epsilon": 0.1},
        lambda x: functional.instance_norm(x, weight=torch.tensor(GAMMA), bias=torch.tensor(BETA), eps=0.1),
    ),
    (
        "batch_norm",
        {"x": X},
        {"mean": MEAN, "variance": VARIANCE, "gamma": GAMMA, "beta": BETA, "epsilon": 0.1},
        lambda x: (x - channels(MEAN)) / (channels(VARIANCE) + 0.1) ** 0.5 * channels(GAMMA) + channels(BETA),
    ),
    ("l2_norm", {"x": X}, {"epsilon": 0.1}, lambda x: x / ((x**2).sum((1, 2, 3), True) + 0.1).sqrt()),
    (
        "max_pool",
        {"x": X},
        {"kernel_sizes": [3, 2], "strides": [2, 1], "pad_type": "custom", "pad": [1, 1, 1, 0]},
        lambda x: functional.max_pool2d(functional.pad(x, (1, 0, 1, 1), value=-torch.inf), (3, 2), (2, 1)),
    ),
    *(
        (
            "avg_pool",
            {"x": X},
            {
                "kernel_sizes": [3, 3],
                "pad_type": "custom",
                "pad": [1, 1, 1, 1],
                "exclude_padding_from_average": excluded,
            },
            lambda x, excluded=excluded: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=not excluded),
        )
        for excluded in (False, True)
    ),
    (
        "upsample_nearest_neighbor",
        {"x": X},
        {"scale_factor_height": 2, "scale_factor_width": 3},
        lambda x: x.repeat_interleave(2, 2).repeat_interleave(3, 3),
    ),
    *(
        (
            "upsample_bilinear",
            {"x": X},
            {"scale_factor_height": 2, "scale_factor_width": 3, "align_corners": aligned},
            lambda x, aligned=aligned: functional.interpolate(x, (12, 15), mode="bilinear", align_corners=aligned),
        )
        for aligned in (False, True)
    ),
    *(
        (
            "resize_bilinear",
            {"x": X},
            {"target_size_height": 9, "target_size_width": 4, "sampling_mode": mode},
            lambda x, mode=mode: functional.interpolate(x, (9, 4), mode="bilinear", align_corners=mode[0] == "S"),
        )
        for mode in ("STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS")
    ),
]
UNVERIFIED: list[Case] = [
    (
        "avg_pool",
        {"x": X},
        {"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid", "ceil_mode": True},
        torch.abs,
    ),
    ("resize_bilinear", {"x": X}, {"target_size_height": 9, "target_size_width": 4}, torch.abs),
    ("upsample_bilinear", {"x": X}, {"align_corners": False, "half_pixel_centers": False}, torch.abs),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_it_equals_pytorch(case: Case):
    check(case)


@pytest.mark.parametrize("case", UNVERIFIED, ids=lambda case: case[0])
def test_modes_of_other_meaning_are_refused(case: Case):
    with pytest.raises(UserError, match=f"{case[0].split('_')[0]}|pooling"):
        check(case)
