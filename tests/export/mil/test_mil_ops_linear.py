"""Products equal PyTorch's: paddings, strides, dilations and groups of convolutions, masks of attention."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.export.mil.mil_programs import Case, check

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 7, 6), np.float32)
WEIGHT = RNG.standard_normal((6, 2, 3, 2), np.float32)  # two groups
BACK = RNG.standard_normal((4, 3, 3, 2), np.float32)
BIAS = RNG.standard_normal(6, np.float32)
TEMPORAL = RNG.standard_normal((5, 4, 2, 3, 1), np.float32)
QUERY, KEY = RNG.standard_normal((2, 3, 5, 4), np.float32), RNG.standard_normal((2, 3, 7, 4), np.float32)
VALUE = RNG.standard_normal((2, 3, 7, 6), np.float32)
KEPT = RNG.random((5, 7)) < 0.7


def conv(pads: list[int], x: np.ndarray = X, weight: np.ndarray = WEIGHT, **options: Any) -> Case:
    """A convolution whose padding is (left, right, top, bottom, ...) in PyTorch's words."""
    constants = {"weight": weight, "bias": BIAS[: len(weight)], "groups": 2, **options}

    def reference(x: torch.Tensor) -> torch.Tensor:
        function = {4: functional.conv2d, 5: functional.conv3d}[x.ndim]
        strides, steps = options.get("strides", 1), options.get("dilations", 1)
        x = functional.pad(x, pads)
        parts = torch.tensor(weight), torch.tensor(constants["bias"])
        return function(x, *parts, strides, dilation=steps, groups=constants["groups"])

    return "conv", {"x": x}, constants, reference


def transposed(padding: int = 0, cut: int = 0, extra: int = 0, **options: Any) -> Case:
    """A transposed convolution with stride 2; `cut` rows and columns are dropped at the end."""

    def reference(x: torch.Tensor) -> torch.Tensor:
        parts = torch.tensor(BACK), torch.tensor(BIAS)
        full = functional.conv_transpose2d(x, *parts, 2, padding, output_padding=extra, groups=2)
        return full[..., : full.shape[2] - cut, :]

    return (
        "conv_transpose",
        {"x": X},
        {"weight": BACK, "bias": BIAS, "groups": 2, "strides": [2, 2], **options},
        reference,
    )


def attended(mask: torch.Tensor) -> torch.Tensor:
    query, key, value = map(torch.tensor, (QUERY, KEY, VALUE))
    return torch.softmax(query @ key.mT / 2 + mask, -1) @ value


HEADS = {"query": QUERY, "key": KEY, "value": VALUE}
CASES: list[Case] = [
    conv([0, 0, 0, 0], pad_type="valid"),
    conv([3, 0, 1, 2], pad_type="custom", pad=[1, 2, 3, 0], strides=[2, 1]),
    conv([0, 1, 1, 1], pad_type="same"),
    conv([0, 0, 1, 1], pad_type="same", strides=[2, 2]),
    conv([1, 0, 1, 1], pad_type="same_lower"),
    conv([1, 1, 2, 2], pad_type="same", dilations=[2, 2]),
    conv([0, 0, 1, 1, 1, 0], X.reshape(1, 4, 3, 7, 4), TEMPORAL, groups=1, pad_type="custom", pad=[1, 0, 1, 1, 0, 0]),
    transposed(pad_type="valid"),
    transposed(padding=1, pad_type="custom", pad=[1, 1, 1, 1]),
    transposed(padding=1, extra=1, pad_type="custom", pad=[1, 1, 1, 1], output_shape=[2, 6, 14, 11]),
    transposed(cut=1, pad_type="same"),
    (
        "linear",
        {"x": X},
        {"weight": WEIGHT[:, :, :, 0].reshape(6, 6), "bias": BIAS},
        lambda x: functional.linear(x, torch.tensor(WEIGHT[:, :, :, 0].reshape(6, 6)), torch.tensor(BIAS)),
    ),
    ("matmul", {"x": QUERY, "y": KEY}, {"transpose_y": True}, lambda x, y: x @ y.mT),
    ("matmul", {"x": KEY, "y": VALUE}, {"transpose_x": True}, lambda x, y: x.mT @ y),
    (
        "einsum",
        {"values": (X.transpose(0, 3, 2, 1).copy(), X)},
        {"equation": "bkhc,bchq->bkhq"},
        lambda x, y: (x.transpose(1, 2) @ y.transpose(1, 2)).transpose(1, 2),
    ),
    ("scaled_dot_product_attention", HEADS, {}, lambda *_: attended(torch.zeros(1))),
    (
        "scaled_dot_product_attention",
        HEADS | {"attn_mask": np.where(KEPT, 0, -1e4).astype(np.float32)},
        {},
        lambda *heads: attended(heads[-1]),
    ),
    (
        "scaled_dot_product_attention",
        HEADS | {"attn_mask": KEPT},
        {},
        lambda *heads: attended(torch.where(heads[-1], 0, -torch.inf)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_it_equals_pytorch(case: Case):
    check(case)
