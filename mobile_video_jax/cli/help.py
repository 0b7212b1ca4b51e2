"""The text of --help: what a command does, its flags, and the keys of its config."""

import sys

from absl import flags

from mobile_video_jax.cli.config import ConfigFlag
from mobile_video_jax.core.field_comments import described_keys


def help_text(config: ConfigFlag | None) -> str:
    """The command's docstring, its flags, and where a config is named every key of it."""
    module = sys.modules["__main__"]
    _, _, listed = flags.FLAGS.main_module_help().partition(":\n")  # behind the module's path
    parts = [(module.__doc__ or "").strip(), f"Flags:\n{listed}"]
    if config:
        parts.append(_keys(config))
    return "\n\n".join(parts)


def _keys(config: ConfigFlag) -> str:
    if config.value is None:
        return "Keys of a config, --config.KEY=VALUE: add --config=FILE.py:VARIANT to list them."
    lines = [f"Keys of {config.text}, with their values there:"]
    for key, value, allowed, comment in described_keys(config.values, type(config.value)):
        lines += [f"  --config.{key}={value}", f"      {comment} ({allowed})"]
    return "\n".join(lines)
