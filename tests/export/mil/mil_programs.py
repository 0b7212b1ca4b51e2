"""Small MIL programs, and one op's result beside what it should be."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch

from export.mil.evaluate import evaluate

mb, types = ct.converters.mil.Builder, ct.converters.mil.mil.types
# What newer versions of torch and Python say as coremltools converts.
NOISE = (
    "ignore:.torch.jit.trace:DeprecationWarning",
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:Implicitly cleaning up <TemporaryDirectory:ResourceWarning",
)
# An op, its inputs, its constants, and what computes the same of the inputs.
Case = tuple[str, dict[str, Any], dict[str, Any], Callable[..., Any]]


def function_of(build: Callable[..., Any], inputs: Mapping[str, np.ndarray], fp16: bool = False) -> Any:
    """The function that `build` makes of placeholders like the inputs; fp16 ones if wanted."""
    half = lambda dtype: np.float16 if fp16 and dtype == np.float32 else dtype
    placeholders = {
        name: mb.placeholder(array.shape, types.numpy_type_to_builtin_type(half(array.dtype)))
        for name, array in inputs.items()
    }
    with ct.converters.mil.mil.Function(placeholders, opset_version=ct.target.iOS18) as function:
        results = build(**function.inputs)
        function.set_outputs(list(results) if isinstance(results, tuple | list) else [results])
    return function


def check(case: Case) -> None:
    """Runs the one op in float32. A tuple of arrays is one input that takes a list."""
    op, inputs, constants, reference = case
    flat = {
        f"{name}_{place}": array
        for name, value in inputs.items()
        for place, array in enumerate(value if isinstance(value, tuple) else [value])
    }

    def build(**values: Any) -> Any:
        parts = iter(values.values())
        arguments = {
            name: [next(parts) for _ in value] if isinstance(value, tuple) else next(parts)
            for name, value in inputs.items()
        }
        return getattr(mb, op)(**arguments, **constants)

    function = function_of(build, flat)
    outputs = evaluate(function, flat).outputs
    expected = reference(*map(torch.tensor, flat.values()))
    expected = expected if isinstance(expected, tuple | list) else [expected]
    assert len(outputs) == len(expected)
    for array, tensor in zip(outputs.values(), expected, strict=True):
        assert array.shape == tensor.shape
        np.testing.assert_allclose(array, tensor.numpy(), rtol=2e-5, atol=2e-6)


def save(function: Any, path: Path) -> Path:
    """The package of a function, as it is."""
    program = ct.converters.mil.Program()
    program.add_function("main", function)
    convert(program).save(str(path))
    return path


def convert(model: Any, **options: Any) -> Any:
    return ct.convert(model, minimum_deployment_target=ct.target.iOS18, skip_model_load=True, **options)
