"""Reads a saved .mlpackage as a program in MIL, Core ML's model intermediate language."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
from coremltools.converters.mil.frontend.milproto.load import load as read_program
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from export.part import FIRST_FUNCTION
from mobile_video_jax.core.errors import UserError

WEIGHTS = Path("Data/com.apple.CoreML/weights")
SERIALIZED = ("write_state",)  # the name in files of coremltools' coreml_update_state


@dataclass(frozen=True)
class Package:
    """A loaded package: its functions by name (coremltools' Function: inputs, operations, outputs)."""

    path: Path
    functions: dict[str, Any]
    default_function: str

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def function(self, name: str | None = None) -> Any:
        """The function of that name, or the default one. Raises UserError for an unknown name."""
        name = name or self.default_function
        if name not in self.functions:
            raise UserError(f"{self.path} has no function {name}: name one of {', '.join(sorted(self.functions))}")
        return self.functions[name]


def load_package(path: Path) -> Package:
    """Reads program and weights.

    Raises UserError for a path that is no package, for a damaged or truncated one, and for a model that is no ML
    program.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no .mlpackage folder: name one that export.run or coremltools wrote")
    # coremltools and protobuf raise nearly every type of exception for what they cannot read.
    try:
        spec = ct.utils.load_spec(str(path))
    except Exception as error:
        raise UserError(f"{path} is damaged or no .mlpackage ({error}): export or copy it again") from error
    if spec.WhichOneof("Type") != "mlProgram":
        kind = spec.WhichOneof("Type") or "an empty model"
        raise UserError(f"{path} holds no ML program but {kind}: convert it with convert_to='mlprogram'")
    _refuse_unknown_ops(spec, path)
    try:
        program = read_program(spec, spec.specificationVersion, file_weights_dir=str(path / WEIGHTS))
    except Exception as error:
        raise UserError(f"{path} is damaged: its program or weights cannot be read ({error})") from error
    default = spec.description.defaultFunctionName or FIRST_FUNCTION
    return Package(path, dict(program.functions), default)


def _refuse_unknown_ops(spec: Any, path: Path) -> None:
    """Raises UserError for an op that coremltools does not know: it would fail without naming it."""
    functions = spec.mlProgram.functions.values()
    blocks = [block for function in functions for block in function.block_specializations.values()]
    for op in (op for block in blocks for op in block.operations):
        if op.type not in SSAOpRegistry.core_ops and op.type not in SERIALIZED:
            output = op.outputs[0].name if op.outputs else "none"
            raise UserError(f"{path} has an op {op.type} (output {output}) that coremltools {ct.__version__} lacks")
