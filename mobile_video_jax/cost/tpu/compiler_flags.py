"""Flags of the TPU compiler by generation: one table for compiling ahead of time, for training and for the JobSet."""

import re
from collections.abc import Mapping

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.tpu.topology import CHIPS

Options = dict[str, bool | int | float | str]

# Gathers of weights and sums of gradients that start early and move while products are computed, from MaxText's and
# MaxDiffusion's recommendations (both read in 2026).
HIDDEN_COLLECTIVES: Options = dict.fromkeys(
    (
        "xla_tpu_enable_async_collective_fusion",
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
        "xla_tpu_enable_async_collective_fusion_multiple_steps",
        "xla_tpu_overlap_compute_collective_tc",
        "xla_enable_async_all_gather",
        "xla_tpu_enable_ag_backward_pipelining",
        "xla_tpu_enable_data_parallel_all_reduce_opt",
        "xla_tpu_data_parallel_opt_different_sized_ops",
    ),
    True,
)
FLAGS: dict[str, Options] = dict.fromkeys(CHIPS, HIDDEN_COLLECTIVES)

NONE = "none"  # in place of flags: the compiler's own defaults
_FLAG = re.compile(r"(?:--)?(xla_\w+)=(\S+)")
_UNKNOWN = re.compile(r"No such compile option: '(\w+)'")


def compiler_options(flags: str, generation: str | None) -> Options:
    """The compiler's options: those of the generation, or of `flags` written "--xla_a=true --xla_b=3", or none.

    `generation` is None for what is no TPU. Raises UserError for flags of another form.
    """
    if generation is None or flags == NONE:
        return {}
    if not flags:
        return FLAGS[generation]
    options = {}
    for word in flags.split():
        if not (match := _FLAG.fullmatch(word)):
            raise UserError(f"xla_flags: '{word}' is not of the form --xla_NAME=VALUE; use '{NONE}' for no flag at all")
        options[match[1]] = _value(match[2])
    return options


def as_arguments(options: Mapping[str, bool | int | float | str]) -> str:
    """The options as LIBTPU_INIT_ARGS takes them, with which every program of a process is compiled."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())


def check_known(error: Exception) -> None:
    """Raises UserError where the compiler's error is that it does not know a flag."""
    if unknown := _UNKNOWN.search(str(error)):
        raise UserError(f"the compiler knows no flag {unknown[1]}: leave it out of xla_flags") from error


def _value(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
