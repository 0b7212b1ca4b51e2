"""Flags that are checked as they are read: numbers in a range, and paths."""

from pathlib import Path
from typing import Any, TypeVar

from absl import flags

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.declared import allowed, read, split
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import local_path, storage_path

T = TypeVar("T")

flags.disclaim_key_flags()  # they belong to the commands that define them


def define_number(name: str, default: T, kind: Any, help: str) -> flags.FlagHolder[T]:
    """A flag for a number of a declared type (core.ranges). `default` may be None."""
    holder: flags.FlagHolder[T] = flags.DEFINE(_Number(kind), name, default, help)
    return holder


def define_path(name: str, help: str, *, local: bool = False, exists: bool = False) -> flags.FlagHolder[Path | None]:
    """A flag for a path of this machine and, where not `local`, of a bucket, gs://BUCKET/NAME; one that `exists`."""
    return flags.DEFINE(_Path(local, exists), name, None, help)


def require_path(name: str, help: str, *, local: bool = False, exists: bool = False) -> flags.FlagHolder[Path]:
    """The same for a path that the command cannot do without."""
    return flags.DEFINE(_Path(local, exists), name, None, help, required=True)


def define_paths(name: str, help: str, *, local: bool = False) -> flags.FlagHolder[list[Path]]:
    """A flag for a path that may be repeated."""
    holder: flags.FlagHolder[list[Path]] = flags.DEFINE_multi(
        _Path(local, False), flags.ArgumentSerializer(), name, [], help
    )
    return holder


def define_located(name: str, default: str, help: str) -> flags.FlagHolder[str]:
    """A flag for a name, or KIND:PATH with a path of this machine."""
    return flags.DEFINE(_Located(), name, default, help)


def define_clip(name: str, default: str, help: str) -> flags.FlagHolder[str]:
    """A flag for a clip's shape, frames x height x width; empty for none."""
    return flags.DEFINE(_Clip(), name, default, help)


def define_clips(name: str, help: str) -> flags.FlagHolder[list[str]]:
    """A flag for a clip's shape that may be repeated."""
    holder: flags.FlagHolder[list[str]] = flags.DEFINE_multi(_Clip(), flags.ArgumentSerializer(), name, [], help)
    return holder


class _Number(flags.ArgumentParser[Any]):
    def __init__(self, kind: Any):
        self.kind = kind
        self.syntactic_help = allowed(kind)

    def parse(self, argument: Any) -> Any:
        try:
            return read(self.kind, argument, "")
        except UserError:
            raise ValueError(f"use {allowed(self.kind)}") from None

    def flag_type(self) -> str:
        return str(split(self.kind)[0].__name__)


class _Path(flags.ArgumentParser[Path]):
    def __init__(self, local: bool, exists: bool):
        self.read = local_path if local else storage_path
        self.exists = exists
        self.syntactic_help = "a local path" if local else "a path or gs://BUCKET/NAME"

    def parse(self, argument: Any) -> Path:
        if not argument:
            raise ValueError("name a path")
        path = self.read(argument)
        if self.exists and not path.exists():
            raise ValueError("does not exist: name another path")
        return path


class _Located(flags.ArgumentParser[str]):
    syntactic_help = "NAME or KIND:PATH with a local path"

    def parse(self, argument: Any) -> str:
        local_path(argument.partition(":")[2])
        return str(argument)


class _Clip(flags.ArgumentParser[str]):
    syntactic_help = "as 49x384x512"

    def parse(self, argument: Any) -> str:
        return str(ClipShape.parse(argument)) if argument else ""
