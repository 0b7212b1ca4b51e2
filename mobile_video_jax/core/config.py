"""Configs: frozen dataclasses inside, an ml_collections.ConfigDict at the edge for the command line."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import ml_collections

from mobile_video_jax.core.errors import UserError

T = TypeVar("T")


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """The dataclass as a locked ConfigDict whose keys `--config.key=value` may set."""
    return ml_collections.ConfigDict(dataclasses.asdict(config)).lock()


def plain(config: Any) -> dict[str, Any]:
    """The dataclass as what JSON gives back: dicts, lists, numbers and texts."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def from_mapping(cls: type[T], values: Mapping[str, Any], path: str = "config") -> T:
    """Builds the dataclass `cls`, nested dataclasses included; raises UserError for a key that it does not have."""
    types = get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"{path}.{key} is no key of this config; it has {', '.join(sorted(known))}")
    built = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(types[key]):
            value = from_mapping(types[key], value, f"{path}.{key}")
        elif isinstance(value, list):
            value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
        built[key] = value
    return cls(**built)
