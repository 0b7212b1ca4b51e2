"""Array types of the package's functions and dataclasses, checked at run time while tests run.

As jaxtyping's own import hook does, but only where an annotation holds an array: of a fifth of all functions and
classes, so that imports and calls of the others cost nothing. mypy checks what else they take.
"""

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, get_args

import jaxtyping
from beartype import beartype

PACKAGES = ("mobile_video_jax", "export")
CHECKED = "__checked__"  # the decorator's name in a module


def checked(annotated: Any) -> Any:
    """The function or dataclass, which checks the arrays that it takes and returns; as it is if there are none."""
    if any(map(holds_arrays, annotated.__annotations__.values())):
        return jaxtyping.jaxtyped(annotated, typechecker=beartype)
    return annotated


def holds_arrays(annotation: Any) -> bool:
    is_array = isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray)
    return is_array or any(map(holds_arrays, get_args(annotation)))


class Loader(SourceFileLoader):
    """Compiles a module from its source with the decorator at every function and class."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                # Innermost of a function, whose other decorators may hide its annotations; outermost of a class, which
                # is a dataclass by then.
                place = 0 if isinstance(node, ast.ClassDef) else len(node.decorator_list)
                node.decorator_list.insert(place, ast.copy_location(ast.Name(CHECKED, ast.Load()), node))
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, CHECKED, checked)
        super().exec_module(module)


class Finder(MetaPathFinder):
    """Finds the modules that are checked."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def check_array_types() -> None:
    """Checks all modules that are imported from now on."""
    if loaded := sorted(set(PACKAGES) & set(sys.modules)):
        raise RuntimeError(f"{', '.join(loaded)} is imported already, unchecked")
    sys.meta_path.insert(0, Finder())
