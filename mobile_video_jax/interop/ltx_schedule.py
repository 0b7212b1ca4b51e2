"""LTX-Video's scheduler: which shift, and which last time, its sampler takes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mobile_video_jax.core.errors import UserError

KIND = "FlowMatchEulerDiscreteScheduler"
# What diffusion.timesteps.token_shift, euler and time_grid compute; other values are other samplers.
FIXED: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "invert_sigmas": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
}
BY_TOKENS: dict[str, Any] = {
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
}


class Schedule(NamedTuple):
    """A shift for all clips, or that of token_shift; and the time of the last step's start, 0 for the grid's own."""

    shift: float = 1.0
    follows_tokens: bool = True
    terminal: float = 0.1


def schedule(settings: Mapping[str, Any]) -> Schedule:
    """The schedule that scheduler_config.json asks for. Raises UserError naming a setting that is not supported."""
    follows = bool(settings.get("use_dynamic_shifting", False))
    known = FIXED | BY_TOKENS if follows else FIXED
    read = {"shift", "use_dynamic_shifting", "shift_terminal"} | (set() if follows else set(BY_TOKENS))
    for key in sorted(key for key in settings.keys() - read if not key.startswith("_")):
        if key not in known:
            raise UserError(f"scheduler: {key}={settings[key]} is not known here: use LTX-Video's scheduler")
        if settings[key] != known[key]:
            raise UserError(f"scheduler: {key}={settings[key]} is not supported; LTX-Video's is {known[key]}")
    return Schedule(settings.get("shift", 1.0), follows, settings.get("shift_terminal") or 0.0)


def settings(found: Schedule) -> dict[str, Any]:
    """The inverse of `schedule`."""
    return {
        "_class_name": KIND,
        **FIXED,
        **BY_TOKENS,
        "shift": found.shift,
        "use_dynamic_shifting": found.follows_tokens,
        "shift_terminal": found.terminal or None,
    }
