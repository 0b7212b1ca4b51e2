"""The ops of a network as the phone runs them, however they were counted."""

import dataclasses
from typing import NamedTuple

HALF = 2  # bytes of a number in fp16


class Value(NamedTuple):
    """A tensor, or a view of one, that an op reads or writes: its bytes, and those of the tensor that holds it."""

    bytes: int
    whole: int


@dataclasses.dataclass(frozen=True)
class Op:
    """One op: FLOPs of its products, bytes of weights as stored, the other values that it reads and writes.

    `part` is the path of the module that runs it, or in a package the op's type.
    """

    part: str
    flops: int
    weight_bytes: int
    values: tuple[Value, ...]
    reduces: bool
