"""Element-wise ops."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Callable[..., Any]


def unary(module: Any, names: Iterable[str]) -> dict[str, Kernel]:
    """PyTorch's functions of these names, with MIL's name for the argument."""

    def kernel(function: Kernel) -> Kernel:
        return lambda x: function(x)

    return {name: kernel(getattr(module, name)) for name in names}


def binary(module: Any, names: Iterable[str]) -> dict[str, Kernel]:
    """PyTorch's functions of these names, with MIL's names for the two arguments."""

    def kernel(function: Kernel) -> Kernel:
        return lambda x, y: function(x, y)

    return {name: kernel(getattr(module, name)) for name in names}


def gelu(x: Tensor, mode: str) -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def clamped_relu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.where(x < 0, alpha * x, x), beta)


KERNELS: dict[str, Kernel] = {
    **unary(torch, ["abs", "acos", "asin", "atan", "atanh", "ceil", "cos", "cosh", "erf", "exp", "exp2"]),
    **unary(torch, ["floor", "logical_not", "relu", "round", "sigmoid", "sign", "sin", "sinh", "sqrt", "square"]),
    **unary(torch, ["tan", "tanh"]),
    **unary(functional, ["relu6", "silu", "softplus", "softsign"]),
    **binary(torch, ["add", "greater", "greater_equal", "less", "less_equal", "logical_and"]),
    **binary(torch, ["logical_or", "logical_xor", "maximum", "minimum", "mul", "not_equal", "pow", "sub"]),
    "cast": lambda x, dtype: x,  # the result takes its declared type anyway
    "clamped_relu": clamped_relu,
    "clip": lambda x, alpha, beta: torch.clamp(x, alpha, beta),
    "elu": lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x)),
    "equal": lambda x, y: torch.eq(x, y),
    "floor_div": lambda x, y: torch.floor_divide(x, y),
    "gelu": gelu,
    "identity": lambda x: x,
    "inverse": lambda x, epsilon: 1 / (x + epsilon),
    "leaky_relu": lambda x, alpha: torch.where(x < 0, alpha * x, x),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "log": lambda x, epsilon: torch.log(x + epsilon),
    "mod": lambda x, y: torch.remainder(x, y),
    "prelu": lambda x, alpha: functional.prelu(x, alpha),
    "real_div": lambda x, y: torch.div(x, y),
    "rsqrt": lambda x, epsilon: torch.rsqrt(x + epsilon),
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "sigmoid_hard": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "threshold": lambda x, alpha: torch.maximum(x, alpha),
    "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, 0),
}
