"""LTX-Video's scheduler settings in diffusers' format: time shift and terminal time, both ways."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mobile_video_jax.core.errors import UserError

KIND = "FlowMatchEulerDiscreteScheduler"
# Values of diffusion/timesteps.py and the Euler solver; other values describe other samplers.
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
    """Settings of the sampling times."""

    shift: float = 1.0  # time shift of all clips, unless follows_tokens
    follows_tokens: bool = True  # the shift depends on the number of tokens (token_shift)
    terminal: float = 0.1  # time where the last step starts; 0: not stretched


def parse_schedule(settings: Mapping[str, Any]) -> Schedule:
    """Parses scheduler_config.json. Raises UserError naming a setting that is not supported."""
    follows = bool(settings.get("use_dynamic_shifting", False))
    known = FIXED | BY_TOKENS if follows else FIXED
    parsed = {"shift", "use_dynamic_shifting", "shift_terminal"} | (set() if follows else set(BY_TOKENS))
    for key in sorted(key for key in settings.keys() - parsed if not key.startswith("_")):
        if key not in known:
            raise UserError(f"scheduler: {key}={settings[key]} is not known here: use LTX-Video's scheduler")
        if settings[key] != known[key]:
            raise UserError(f"scheduler: {key}={settings[key]} is not supported; LTX-Video's is {known[key]}")
    return Schedule(settings.get("shift", 1.0), follows, settings.get("shift_terminal") or 0.0)


def settings(schedule: Schedule) -> dict[str, Any]:
    """Inverse of parse_schedule."""
    return {
        "_class_name": KIND,
        **FIXED,
        **BY_TOKENS,
        "shift": schedule.shift,
        "use_dynamic_shifting": schedule.follows_tokens,
        "shift_terminal": schedule.terminal or None,
    }
