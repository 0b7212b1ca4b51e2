"""Ops that compute each value by itself equal PyTorch's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.export.mil.mil_programs import Case, check

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 2, 4, 5), np.float32)
POSITIVE = np.abs(X) + 0.1
# Equal values, zeros and halves among them.
TIES = np.round(3 * X) / 2
CHANNELS = RNG.standard_normal(4, np.float32)

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: getattr(torch, name) for name in ("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor")},
    **{name: getattr(torch, name) for name in ("round", "sigmoid", "sign", "sin", "sinh", "square", "tan", "tanh")},
    **{name: getattr(functional, name) for name in ("relu", "relu6", "silu", "softplus", "softsign")},
    "identity": torch.clone,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{name: getattr(torch, name) for name in ("add", "sub", "mul", "maximum", "minimum")},
    **{"real_div": torch.div, "floor_div": torch.floor_divide, "mod": torch.remainder},
    **{"greater": torch.gt, "greater_equal": torch.ge, "less": torch.lt, "less_equal": torch.le},
    **{"equal": torch.eq, "not_equal": torch.ne},
}
LOGICAL = {f"logical_{name}": getattr(torch, f"logical_{name}") for name in ("and", "or", "xor")}
CASES: list[Case] = [
    *((name, {"x": TIES}, {}, function) for name, function in UNARY.items()),
    *((name, {"x": TIES, "y": np.round(Y) + 0.5}, {}, function) for name, function in BINARY.items()),
    *((name, {"x": X > 0, "y": Y > 0}, {}, function) for name, function in LOGICAL.items()),
    *((name, {"x": np.tanh(X)}, {}, getattr(torch, name)) for name in ("acos", "asin", "atanh")),
    ("sqrt", {"x": POSITIVE}, {}, torch.sqrt),
    ("pow", {"x": POSITIVE, "y": Y}, {}, torch.pow),
    ("rsqrt", {"x": POSITIVE}, {"epsilon": 0.5}, lambda x: (x + 0.5) ** -0.5),
    ("inverse", {"x": POSITIVE}, {"epsilon": 0.5}, lambda x: 1 / (x + 0.5)),
    ("log", {"x": POSITIVE}, {"epsilon": 0.5}, lambda x: torch.log(x + 0.5)),
    ("gelu", {"x": X}, {"mode": "EXACT"}, functional.gelu),
    ("gelu", {"x": X}, {"mode": "TANH_APPROXIMATION"}, lambda x: functional.gelu(x, approximate="tanh")),
    ("gelu", {"x": X}, {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x / (1 + torch.exp(-1.702 * x))),
    ("clip", {"x": X}, {"alpha": -0.5, "beta": 0.25}, lambda x: x.clip(-0.5, 0.25)),
    ("clamped_relu", {"x": X}, {"alpha": 0.3, "beta": 0.5}, lambda x: functional.leaky_relu(x, 0.3).clip(max=0.5)),
    ("elu", {"x": X}, {"alpha": 0.7}, lambda x: functional.elu(x, 0.7)),
    ("leaky_relu", {"x": X}, {"alpha": 0.2}, lambda x: functional.leaky_relu(x, 0.2)),
    ("linear_activation", {"x": X}, {"alpha": 2.0, "beta": 1.0}, lambda x: 2 * x + 1),
    ("prelu", {"x": X[None]}, {"alpha": CHANNELS[:2]}, lambda x: functional.prelu(x, torch.tensor(CHANNELS[:2]))),
    ("scaled_tanh", {"x": X}, {"alpha": 2.0, "beta": 0.5}, lambda x: 2 * torch.tanh(x / 2)),
    ("sigmoid_hard", {"x": X}, {"alpha": 0.2, "beta": 0.5}, lambda x: (0.2 * x + 0.5).clip(0, 1)),
    ("threshold", {"x": X}, {"alpha": 0.2}, lambda x: x.clip(min=0.2)),
    ("thresholded_relu", {"x": TIES}, {"alpha": 0.5}, lambda x: torch.where(x < 0.5, 0, x)),
    ("cast", {"x": 3 * X}, {"dtype": "int32"}, lambda x: x.trunc().int()),
    ("cast", {"x": TIES}, {"dtype": "bool"}, lambda x: x != 0),
    ("cast", {"x": TIES}, {"dtype": "fp16"}, torch.Tensor.half),
    ("cast", {"x": X > 0}, {"dtype": "fp16"}, torch.Tensor.half),
    ("select", {"cond": X > 0, "a": X, "b": Y}, {}, torch.where),
    ("logical_not", {"x": X > 0}, {}, torch.logical_not),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_it_equals_pytorch(case: Case):
    check(case)
