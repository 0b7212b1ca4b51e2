"""Values read as the type that a config's field or a flag declares: what is allowed, in code and in words."""

import math
from typing import Annotated, Any, Literal, get_args, get_origin

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Range

BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def split(kind: Any) -> tuple[Any, Range | None]:
    """A declared type without its range, and the range."""
    if get_origin(kind) is Annotated:
        kind, limits = get_args(kind)
        return kind, limits
    return kind, None


def read(kind: Any, value: Any, name: str) -> Any:
    """A bool, int, float, str or choice; text is read as a flag gives it: 1e5 is a whole number, yes a bool.

    Raises UserError with `name` for a value that is not of the type, not finite or out of range.
    """
    bare, limits = split(kind)
    result = _read_number(bare, value) if bare in (int, float) else _read_other(bare, value)
    if result is None or (limits is not None and result not in limits):
        raise UserError(f"{name}={value}: use {allowed(kind)}")
    return result


def allowed(kind: Any) -> str:
    """The values that a declared type allows, in words."""
    bare, limits = split(kind)
    if get_origin(bare) is Literal:
        return " or ".join(map(str, get_args(bare)))
    if get_origin(bare) is tuple:
        first, *others = get_args(bare)
        count = "" if others == [...] and limits is None else f"{limits or 1 + len(others)} ".removeprefix("from ")
        return f"a list of {count}items, each {allowed(first)}"
    return WORDS[bare] if limits is None else f"{WORDS[bare]} {limits}"


def _read_number(kind: Any, value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if kind is float:
        return float(value)
    return int(value) if value == int(value) else None


def _read_other(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else None
    if kind is bool and isinstance(value, str):
        return BOOLS.get(value.lower())
    return value if isinstance(value, kind) else None
