"""States: values that a package keeps between calls."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from export.mil.ops.elementwise import Kernel


@dataclass
class State:
    """A value that execution replaces."""

    value: Tensor


def zero_states(function: Any) -> dict[str, State]:
    """The states of a function at the start of a session, all zero; execution changes them in place."""
    states = {name: var for name, var in function.inputs.items() if is_state(var)}
    return {name: State(torch.zeros(var.shape)) for name, var in states.items()}


def is_state(var: Any) -> bool:
    return hasattr(var.sym_type, "wrapped_type")


def update(state: State, value: Tensor) -> Tensor:
    state.value = value
    return value


KERNELS: dict[str, Kernel] = {"coreml_update_state": update, "read_state": lambda input: input.value}
