"""The ops of a network, counted in a package or in a PyTorch module whose tensors have no memory."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from export.mil.liveness import arguments, bytes_of, op_costs
from export.mil.ops.table import is_constant
from mobile_video_jax.cost.phone.ops import HALF, Op, Value

# Ops that show a tensor's numbers at other positions. PyTorch's views are known by their storage.
VIEWS = {"reshape", "transpose", "expand_dims", "squeeze", "split", "slice_by_index"}
REDUCTIONS = {"softmax", "amax", "amin", "linalg_vector_norm", "mean", "sum", "group_norm", "layer_norm"}


def ops_of_program(function: Any) -> list[Op]:
    """The ops of a package's function (export.mil.load)."""
    holders: dict[Any, Any] = {}  # of each view the value whose numbers it shows
    ops = []
    for op, cost in zip((op for op in function.operations if not is_constant(op)), op_costs(function), strict=True):
        if op.op_type in VIEWS:
            holders |= dict.fromkeys(op.outputs, holders.get(op.inputs["x"], op.inputs["x"]))
            continue
        read = {var for var in arguments(op) if var.op is None or not is_constant(var.op)}
        values = (Value(bytes_of(var), bytes_of(holders.get(var, var))) for var in (*read, *op.outputs))
        reduces = op.op_type in REDUCTIONS or op.op_type.startswith("reduce_")
        ops.append(Op(op.op_type, cost.flops, cost.weight_bytes, tuple(values), reduces))
    return ops


def ops_of_module(module: nn.Module, *inputs: Tensor, weight_bits: float = 16.0, **named: Any) -> list[Op]:
    """The ops of a module on PyTorch's meta device, which computes shapes alone.

    All numbers are fp16, except weights, which have `weight_bits`.
    """
    return ops_and_peak(module, *inputs, weight_bits=weight_bits, **named)[0]


def ops_and_peak(module: nn.Module, *inputs: Tensor, weight_bits: float = 16.0, **named: Any) -> tuple[list[Op], int]:
    """The ops, and the most bytes of values that live at a time with them in their order; weights do not count."""
    recorder = _Recorder(module, weight_bits)
    with torch.inference_mode(), recorder.tracker, recorder:
        module(*inputs, **named)
    last = {holder: i for i, values in enumerate(recorder.values) for holder in values}
    live: dict[int, int] = {}
    peak = 0
    for i, values in enumerate(recorder.values):
        live |= values
        peak = max(peak, sum(live.values()))
        live = {holder: size for holder, size in live.items() if last[holder] > i}
    return recorder.ops, peak


class _Recorder(TorchDispatchMode):
    """Records each op before PyTorch decomposes it: in inference mode a convolution, a softmax, an einsum is one."""

    def __init__(self, module: nn.Module, weight_bits: float):
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracker, self.weight_bits, self.ops = ModuleTracker(), weight_bits, list[Op]()
        self.weights = {_holder(x) for x in (*module.parameters(), *module.buffers())}
        self.values: list[dict[int, int]] = []  # of each op: bytes of the tensors that hold what it reads and writes
        self.results: list[Tensor] = []  # kept alive, so that no two tensors have a storage at the same address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.results += results
        holders = {_holder(x): _value(x).whole for x in (*operands, *results)}
        self.values.append({holder: size for holder, size in holders.items() if holder not in self.weights})
        if results and {_holder(x) for x in results}.isdisjoint(map(_holder, operands)):
            self.ops.append(self._op(str(func).split(".")[1], args, operands, results))
        return result

    def _op(self, name: str, args: Sequence[Any], operands: list[Tensor], results: list[Tensor]) -> Op:
        weights = sum(x.numel() for x in operands if _holder(x) in self.weights)
        read = {(_holder(x), x.storage_offset(), x.shape): x for x in operands if _holder(x) not in self.weights}
        return Op(
            part=max(self.tracker.parents, key=len),
            flops=FLOPS[name](args, results[0]) if name in FLOPS else 0,
            weight_bytes=math.ceil(weights * self.weight_bits / 8),
            values=tuple(_value(x) for x in (*read.values(), *results)),
            reduces=name in REDUCTIONS,
        )


def _holder(x: Tensor) -> int:
    address: int = x.untyped_storage()._cdata
    return address


def _value(x: Tensor) -> Value:
    return Value(HALF * x.numel(), HALF * x.untyped_storage().nbytes() // x.element_size())


def _convolution_flops(args: Sequence[Any], out: Tensor) -> int:
    return int(2 * out.numel() * math.prod(args[1].shape[1:]))


def _product_flops(args: Sequence[Any], out: Tensor) -> int:
    return int(2 * out.numel() * args[0].shape[-1])


def _einsum_flops(args: Sequence[Any], out: Tensor) -> int:
    terms = args[0].split("->")[0].split(",")
    sizes = {letter: n for term, x in zip(terms, args[1], strict=True) for letter, n in zip(term, x.shape, strict=True)}
    return int(2 * math.prod(sizes.values()))


def _attention_flops(args: Sequence[Any], out: Tensor) -> int:
    query, key = args[:2]
    return int(2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + out.shape[-1]))


# A multiply-add is 2 FLOPs; element-wise ops have none, as in export/mil/liveness.py.
FLOPS: dict[str, Callable[[Sequence[Any], Tensor], int]] = {
    "conv2d": _convolution_flops,
    "conv3d": _convolution_flops,
    "linear": _product_flops,
    "matmul": _product_flops,
    "einsum": _einsum_flops,
    "scaled_dot_product_attention": _attention_flops,
}
