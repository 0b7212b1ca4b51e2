"""Types of the settings in a published config.json, as those of diffusers' defaults."""

from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.errors import UserError


def check_types(settings: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
    """Raises UserError naming a setting whose value is of another type than its default; null is of any."""
    for key, value in settings.items():
        default = defaults.get(key)
        if value is not None and default is not None and not _fits(value, default):
            raise UserError(f"{where}: {key}={value!r} is no value like {default!r}: download the folder again")


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(_fits(item, each) for item in value for each in default[:1])
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
