"""Ops that move values equal NumPy's and PyTorch's: negative axes, masks, strides, paddings."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.export.mil.mil_programs import Case, check

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 2, 8, 4, 6), np.float32)
INDICES = np.array([[1, -1, 0], [2, -3, 5]], np.int32)
ALONG = RNG.integers(-6, 6, X.shape).astype(np.int32)
BLOCKS = np.arange(4)


def place(x: torch.Tensor, index: tuple[slice, ...], value: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[index] = value
    return x


def batched(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The last axis at the indices of each row's own clip."""
    return torch.stack([part[..., index.long()] for part, index in zip(x, indices, strict=True)])


def slicing(begin: list[int], end: list[int], **options: list) -> Case:
    """NumPy's own slice of the same; a squeezed axis takes one place."""
    strides = options.get("stride", [1] * 4)
    masks = (options.get(name, [False] * 4) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    index = tuple(
        b if squeezed else slice(None if open_begin else b, None if open_end else e, step)
        for b, e, step, open_begin, open_end, squeezed in zip(begin, end, strides, *masks, strict=True)
    )
    return (
        "slice_by_index",
        {"x": X},
        {"begin": begin, "end": end, **options},
        lambda x: torch.tensor(x.numpy()[index].copy()),
    )


CASES: list[Case] = [
    ("concat", {"values": (X, Y)}, {"axis": -2}, lambda x, y: torch.cat([x, y], -2)),
    ("concat", {"values": (X, Y)}, {"axis": 1, "interleave": True}, lambda x, y: torch.stack([x, y], 2).flatten(1, 2)),
    ("stack", {"values": (X, Y)}, {"axis": -1}, lambda x, y: torch.stack([x, y], -1)),
    ("split", {"x": X}, {"num_splits": 2, "axis": 1}, lambda x: x.chunk(2, 1)),
    ("split", {"x": X}, {"split_sizes": [1, 3, 2], "axis": -1}, lambda x: x.split([1, 3, 2], -1)),
    ("reshape", {"x": X}, {"shape": [-1, 0, 0]}, lambda x: x.reshape(16, 4, 6)),
    ("reshape", {"x": X[0]}, {"shape": [0, 2, 4, 0, -1]}, lambda x: x.reshape(1, 2, 4, 4, 6)),
    ("expand_dims", {"x": X[0]}, {"axes": [0, -2]}, lambda x: x[None, :, :, None, :]),
    ("expand_dims", {"x": X[0]}, {"axes": [-1]}, lambda x: x[..., None]),
    ("squeeze", {"x": X[:1, :, :1]}, {"axes": [-2]}, lambda x: x.squeeze(2)),
    ("squeeze", {"x": X[:1, :, :1]}, {}, torch.squeeze),
    ("transpose", {"x": X}, {"perm": [0, -1, 1, 2]}, lambda x: x.permute(0, 3, 1, 2)),
    ("reverse", {"x": X}, {"axes": [-1, 1]}, lambda x: x.flip(-1, 1)),
    ("tile", {"x": X}, {"reps": [1, 2, 1, 3]}, lambda x: x.repeat(1, 2, 1, 3)),
    ("fill", {"shape": np.array([2, 3], np.int32)}, {"value": 1.5}, lambda _: torch.full((2, 3), 1.5)),
    ("fill_like", {"ref_tensor": X}, {"value": -2.0}, lambda x: torch.full_like(x, -2)),
    ("shape", {"x": X}, {}, lambda x: torch.tensor(x.shape)),
    ("range_1d", {}, {"start": 3, "end": 10, "step": 2}, lambda: torch.tensor([3, 5, 7, 9])),
    slicing([0, 1, -3, 0], [2, -1, 4, 6]),
    slicing(
        [0, 0, 3, 5],
        [0, 8, 0, 0],
        stride=[1, 3, -1, -2],
        begin_mask=[True] + [False] * 3,
        end_mask=[True, False, True, True],
    ),
    slicing([-1, 0, 2, 0], [0, 8, 0, 6], squeeze_mask=[True, False, True, False]),
    ("slice_by_size", {"x": X}, {"begin": [0, 2, 1, -4], "size": [2, -1, 2, 3]}, lambda x: x[:, 2:, 1:3, 2:5]),
    (
        "slice_update",
        {"x": X, "update": Y[:, 1:7:2, :, :3]},
        {"begin": [0, 1, 0, -6], "end": [0, 7, 0, 3], "stride": [1, 2, 1, 1], "end_mask": [True, False, True, False]},
        lambda x, update: place(x, (slice(None), slice(1, 7, 2), slice(None), slice(0, 3)), update),
    ),
    ("gather", {"x": X, "indices": INDICES}, {"axis": -1}, lambda x, i: x[..., i.long()]),
    ("gather", {"x": X, "indices": INDICES.astype(np.int16)}, {"axis": -1}, lambda x, i: x[..., i.long()]),
    ("gather", {"x": X}, {"indices": -2, "axis": 1}, lambda x: x[:, -2]),
    ("gather", {"x": X, "indices": INDICES}, {"axis": 3, "batch_dims": 1}, batched),
    ("gather_along_axis", {"x": X, "indices": ALONG}, {"axis": -1}, lambda x, i: x.gather(-1, i.long() % 6)),
    *(
        (
            "pad",
            {"x": X},
            {"pad": [1, 2, 0, 3], "mode": mode},
            lambda x, mode=mode: functional.pad(x, (0, 3, 1, 2), mode),
        )
        for mode in ("reflect", "replicate")
    ),
    ("pad", {"x": X}, {"pad": [0, 1, 2, 0], "constant_val": 7.0}, lambda x: functional.pad(x, (2, 0, 0, 1), value=7)),
    ("pixel_shuffle", {"x": X}, {"upscale_factor": 2}, lambda x: functional.pixel_shuffle(x, 2)),
    ("pixel_unshuffle", {"x": X}, {"downscale_factor": np.uint32(2)}, lambda x: functional.pixel_unshuffle(x, 2)),
    (
        "depth_to_space",
        {"x": X},
        {"block_size": 2},
        lambda x: functional.pixel_shuffle(x.reshape(2, 2, 2, 2, 4, 6).permute(0, 3, 1, 2, 4, 5).flatten(1, 3), 2),
    ),
    (
        "space_to_depth",
        {"x": X},
        {"block_size": 2},
        lambda x: torch.cat([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_it_equals_pytorch(case: Case):
    check(case)
