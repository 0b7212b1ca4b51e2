"""The trailing comments of a config's fields, which are their documentation."""

import ast
import dataclasses
import functools
import importlib
import inspect
import io
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from mobile_video_jax.core.config import config_class, config_classes, field_types
from mobile_video_jax.core.declared import allowed, split


def described_keys(values: Mapping[str, Any], cls: type, path: str = "") -> Iterator[tuple[str, Any, str, str]]:
    """Each key of a config with its value, what it allows and its comment; keys of nested configs with dots."""
    comments = field_comments(cls)
    for name, kind in field_types(cls).items():
        bare, _ = split(kind)
        if classes := config_classes(bare):
            yield from described_keys(values[name], config_class(classes, values[name]), f"{path}{name}.")
        else:
            yield f"{path}{name}", values[name], allowed(kind), comments.get(name, "")


def field_comments(cls: type) -> dict[str, str]:
    """The trailing comment of every field of a dataclass, those of its bases included."""
    comments: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            comments |= _of_module(base.__module__).get(base.__name__, {})
    return comments


@functools.cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    """The comments of the fields of all classes of a module, by class and field."""
    source = inspect.getsource(importlib.import_module(name))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    return {
        node.name: {
            field.target.id: comments[field.end_lineno].lstrip("# ")
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.end_lineno in comments
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }
