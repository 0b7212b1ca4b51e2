"""The command line: flags, configs, one-line errors, --help, and the last lines of stdout."""

from mobile_video_jax.cli.checkpoint_flags import CheckpointFlags, define_checkpoint
from mobile_video_jax.cli.command import finish, run
from mobile_video_jax.cli.config import ConfigFlag, define_config
from mobile_video_jax.cli.config_file import load_config
from mobile_video_jax.cli.flag_types import (
    define_clip,
    define_clips,
    define_located,
    define_number,
    define_path,
    define_paths,
    require_path,
)

__all__ = [
    "CheckpointFlags",
    "ConfigFlag",
    "define_checkpoint",
    "define_clip",
    "define_clips",
    "define_config",
    "define_located",
    "define_number",
    "define_path",
    "define_paths",
    "finish",
    "load_config",
    "require_path",
    "run",
]
