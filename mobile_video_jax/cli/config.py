"""The flag --config of a command: a config file, and the values that flags and a YAML file change in it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from absl import flags

from mobile_video_jax.cli.config_file import load_config
from mobile_video_jax.cli.flag_types import define_path
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError

PREFIX = "config."

flags.disclaim_key_flags()


@dataclasses.dataclass
class ConfigFlag:
    """A command's config, there once its command line is read: the file's values, under --values, under flags."""

    kind: Callable[[Mapping[str, Any]], type]  # the config class of a file's values
    default: Callable[[], str | None]  # the config file without --config
    required: bool
    name: flags.FlagHolder[str | None]
    file: flags.FlagHolder[Path | None]
    show: flags.FlagHolder[bool]
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)  # nested, by key
    value: Any = None  # the config, checked; None where none is named

    @property
    def text(self) -> str | None:
        """FILE.py:VARIANT or NAME:VARIANT."""
        return self.name.value or self.default()

    @property
    def variant(self) -> str:
        """The variant that --config names, empty without one."""
        return (self.name.value or "").partition(":")[2]

    @property
    def values(self) -> dict[str, Any]:
        """All values of the config, nested."""
        return dataclasses.asdict(self.value)

    @property
    def changed(self) -> dict[str, Any]:
        """The values that flags and --values set, checked, by key."""
        values = dict(_flattened(self.values))
        return {key: values[key] for key, _ in _flattened(self.changes) if key in values}

    @property
    def arguments(self) -> list[str]:
        """The arguments that give the same config in another place, which has no file of --values."""
        return [f"--config={self.text}", *(f"--config.{key}={value}" for key, value in _flattened(self.changes))]

    def read(self, keys: Sequence[tuple[str, str]]) -> None:
        """Reads the config with the values of flags --config.KEY=VALUE. Raises UserError for what cannot be meant."""
        if self.file.value:
            self.changes = _yaml(self.file.value)
        for key, text in keys:
            _set(self.changes, key, text)
        if self.text is None:
            if self.required:
                raise UserError("--config is missing: use --config=FILE.py:VARIANT, such as --config=dit:tiny")
            if self.changes:
                raise UserError("values of a config need --config=FILE.py:VARIANT, such as --config=dit:tiny")
            return
        values = _merged(load_config(self.text), self.changes)
        self.value = from_mapping(self.kind(values), values)

    def as_yaml(self) -> str:
        """The config as a file for --values."""
        text: str = yaml.safe_dump(plain(self.value), sort_keys=False)
        return text


def define_config(
    kind: Callable[[Mapping[str, Any]], type],
    help: str,
    *,
    default: Callable[[], str | None] = lambda: None,
    required: bool = True,
) -> ConfigFlag:
    """Flags --config, --config.KEY, --values and --print_config; `cli.run` takes what this returns."""
    return ConfigFlag(
        kind,
        default,
        required,
        name=flags.DEFINE_string("config", None, f"{help} FILE.py:VARIANT, or NAME:VARIANT of configs/NAME.py."),
        file=define_path("values", "A YAML file of values that replace the config's; --config.KEY wins.", local=True),
        show=flags.DEFINE_bool("print_config", False, "Only print the config with all its values, as YAML."),
    )


def split_keys(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Command line arguments without --config.KEY=VALUE, and these; a KEY alone is true."""
    others: list[str] = []
    keys: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not name.startswith(PREFIX):
            others.append(argument)
            continue
        if not equals:
            value = "true" if not rest or rest[0].startswith("--") else rest.pop(0)
        keys.append((name.removeprefix(PREFIX), value))
    return others, keys


def _yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--values={path} is no YAML file: {error}") from None
    except FileNotFoundError:
        raise UserError(f"--values={path}: there is no such file") from None
    if not isinstance(values, dict):
        raise UserError(f"--values={path} holds no keys: write KEY: VALUE in each line, as steps: 1000")
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            inner = values[parent] = {}
        values = inner
    values[last] = value


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        result[key] = _merged(values[key], value) if nested else value
    return result


def _flattened(values: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flattened(value, f"{path}{key}.") if isinstance(value, Mapping) else [(f"{path}{key}", value)]
    return rows
