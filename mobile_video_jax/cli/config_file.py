"""Config files: Python files with a function get_config(variant)."""

import importlib
import pkgutil
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import local_path

PACKAGE = "configs"  # of this project's own configs, found from every working directory


def load_config(text: str) -> dict[str, Any]:
    """The values of FILE.py:VARIANT, or of NAME:VARIANT for one of the project's own configs.

    A path that begins with configs/ and does not exist here names one of these as well. Raises UserError for a config
    that cannot be read.
    """
    name, _, variant = text.partition(":")
    try:
        get_config = _get_config(name)
        values = get_config(variant) if variant else get_config()
    except (OSError, UserError):
        raise
    except Exception as error:  # of a user's own file, whatever it does
        raise UserError(f"config {text}: {error}") from error
    if hasattr(values, "to_dict"):
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise UserError(f"config {text}: get_config returns no ConfigDict")
    return dict(values)


def _get_config(name: str) -> Callable[..., Any]:
    path = local_path(name)
    if path.is_file():
        return _function(vars_of=runpy.run_path(str(path)), name=name)
    known = names()
    if path.parent in (Path(), Path(PACKAGE)) and path.name.removesuffix(".py") in known:
        module = importlib.import_module(f"{PACKAGE}.{path.name.removesuffix('.py')}")
        return _function(vars_of=vars(module), name=name)
    raise UserError(f"there is no config file {name}: use FILE.py:VARIANT, or one of {', '.join(known)} as dit:tiny")


def _function(vars_of: Mapping[str, Any], name: str) -> Callable[..., Any]:
    if "get_config" not in vars_of:
        raise UserError(f"{name} has no function get_config: name a config file")
    get_config: Callable[..., Any] = vars_of["get_config"]
    return get_config


def names() -> list[str]:
    """The project's own configs."""
    package = importlib.import_module(PACKAGE)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg)
