"""Configs: frozen dataclasses inside, an ml_collections.ConfigDict at the edge for the command line.

A field's type holds its range (core.ranges) or its choices (Literal); its trailing comment says what it means.
"""

import ast
import dataclasses
import difflib
import functools
import json
import types
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import ml_collections

from mobile_video_jax.core.declared import allowed, read, split
from mobile_video_jax.core.errors import UserError

T = TypeVar("T")


class Config:
    """Base of config dataclasses. Raises UserError for a field out of its range, however the object is built."""

    def __post_init__(self) -> None:
        for name, kind in field_types(type(self)).items():
            checked(kind, getattr(self, name), f"{type(self).__name__}.{name}")


def field_types(cls: type) -> dict[str, Any]:
    """The declared types of a dataclass's fields, with their ranges."""
    return _field_types(cast(Hashable, cls))


@functools.cache
def _field_types(cls: Any) -> dict[str, Any]:
    kinds = get_type_hints(cls, include_extras=True)
    return {field.name: kinds[field.name] for field in dataclasses.fields(cls)}


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """The dataclass as a locked ConfigDict whose keys `--config.key=value` may set."""
    return ml_collections.ConfigDict(dataclasses.asdict(config)).lock()


def plain(config: Any) -> dict[str, Any]:
    """The dataclass as what JSON gives back: dicts, lists, numbers and texts."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def from_mapping(cls: type[T], values: Mapping[str, Any], path: str = "config") -> T:
    """Builds the dataclass `cls`, nested dataclasses included, of values as a flag, YAML or JSON gives them.

    Raises UserError that names the key, for an unknown key and for a value that its declared type does not allow.
    """
    kinds = field_types(cls)
    if not isinstance(values, Mapping):
        raise UserError(f"{path}={values}: use a mapping with the keys {', '.join(kinds)}")
    for key in values:
        if key not in kinds:
            raise UserError(f"{path}.{key} is no key of this config; {_known(key, sorted(kinds))}")
    built = {key: checked(kinds[key], value, f"{path}.{key}") for key, value in values.items()}
    if missing := [name for name in kinds if name not in built and name not in _defaults(cls)]:
        raise UserError(f"{path}.{missing[0]} is missing")
    return cls(**built)


def checked(kind: Any, value: Any, name: str) -> Any:
    """`value` as the declared type holds it. Raises UserError with `name` where the type does not allow it."""
    bare, _ = split(kind)
    if get_origin(bare) is tuple:
        return _checked_items(kind, value, name)
    if classes := config_classes(bare):
        return value if isinstance(value, classes) else from_mapping(config_class(classes, value), value, name)
    return read(kind, value, name)


def config_classes(kind: Any) -> tuple[type, ...]:
    """The dataclasses of a declared type: one, those of a union, or none."""
    classes = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return classes if all(isinstance(each, type) and dataclasses.is_dataclass(each) for each in classes) else ()


def config_class(classes: tuple[type, ...], values: Any) -> type:
    """The class of a union that the value `family` names; the first where it names none."""
    family = values.get("family") if isinstance(values, Mapping) else None
    return next((each for each in classes if getattr(each, "family", None) == family), classes[0])


def _checked_items(kind: Any, value: Any, name: str) -> tuple[Any, ...]:
    bare, limits = split(kind)
    items, kinds = _listed(value) if isinstance(value, str) else value, get_args(bare)
    if isinstance(items, list | tuple) and kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(items)
    if not isinstance(items, list | tuple) or len(items) != len(kinds) or (limits and len(items) not in limits):
        raise UserError(f"{name}={value}: use {allowed(kind)}")
    return tuple(checked(each, item, f"{name}[{i}]") for i, (each, item) in enumerate(zip(kinds, items, strict=True)))


def _listed(text: str) -> Any:
    """The items of a list as a flag gives it: (1, 2) or 1,2 or a,b."""
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return [item.strip() for item in text.split(",") if item.strip()]
    return items if isinstance(items, list | tuple) else (items,)


def _known(key: str, names: list[str]) -> str:
    near = difflib.get_close_matches(key, names, n=1)
    return "".join(f"did you mean {name}? " for name in near) + f"it has {', '.join(names)}"


def _defaults(cls: type) -> set[str]:
    """The fields that have a default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(cls)
    return {field.name for field in fields if (field.default, field.default_factory) != (missing, missing)}
