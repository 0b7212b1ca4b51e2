"""The sampler of a release of LTX-Video: times, positions and text, from a pipeline's settings or a file's header."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.config import ScheduleName

KIND = "FlowMatchEulerDiscreteScheduler"
# Values of diffusion/timesteps.py and the Euler solver; other values describe other samplers.
FIXED: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "invert_sigmas": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "time_shift_type": "exponential",
}
BY_TOKENS: dict[str, Any] = {
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
}


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Times, positions and text states that a transformer was trained for. The default is that of 0.9 and 0.9.1."""

    shift: float = 1.0  # time shift of all clips, unless follows_tokens
    follows_tokens: bool = True  # the shift depends on the number of tokens (token_shift)
    terminal: float = 0.1  # time where the last step starts; 0: not stretched
    schedule: ScheduleName = "uniform"  # times before the shift
    times: tuple[float, ...] = ()  # the only times that a distilled model knows
    causal: bool = False  # the first latent frame's position is that of one frame
    text: str = "ltx"  # kind of PIPELINE_TEXTS
    renoises: bool = False  # each step noises its x0 prediction afresh, as 0.9.6-distilled's do

    @property
    def image_noise(self) -> float:
        """Deviation of the noise in a given first frame: the default of LTXConditionPipeline and its releases."""
        return 0.15 if self.causal else 0.0


# What the classes of diffusers differ in. LTXConditionPipeline is of 0.9.5 and later.
PIPELINES: dict[str, dict[str, Any]] = {
    "LTXPipeline": {},
    "LTXImageToVideoPipeline": {},
    "LTXConditionPipeline": {"schedule": "linear_quadratic", "causal": True, "text": "ltx_masked"},
}


def parse_scheduler(settings: Mapping[str, Any], pipeline: str) -> Sampler:
    """The sampler of a pipeline with this scheduler_config.json.

    Raises UserError naming a setting that is not supported.
    """
    follows = bool(settings.get("use_dynamic_shifting", False))
    sampler = Sampler(
        settings.get("shift", 1.0),
        follows,
        settings.get("shift_terminal") or 0.0,
        renoises=bool(settings.get("stochastic_sampling", False)),
        **PIPELINES[pipeline],
    )
    if follows and sampler.schedule != "uniform":
        raise UserError(
            f"scheduler: use_dynamic_shifting=True has no effect in {pipeline}: use the release's scheduler"
        )
    known = FIXED | BY_TOKENS if follows else FIXED
    parsed = {"shift", "use_dynamic_shifting", "shift_terminal", "stochastic_sampling"} | (
        set() if follows else set(BY_TOKENS)
    )
    for key in sorted(key for key in settings.keys() - parsed if not key.startswith("_")):
        if key not in known:
            raise UserError(f"scheduler: {key}={settings[key]} is not known here: use LTX-Video's scheduler")
        if settings[key] != known[key]:
            raise UserError(f"scheduler: {key}={settings[key]} is not supported; LTX-Video's is {known[key]}")
    return sampler


def scheduler_settings(sampler: Sampler) -> dict[str, Any]:
    """The scheduler_config.json of a sampler: inverse of parse_scheduler."""
    return {
        "_class_name": KIND,
        **FIXED,
        **BY_TOKENS,
        "shift": sampler.shift,
        "use_dynamic_shifting": sampler.follows_tokens,
        "shift_terminal": sampler.terminal or None,
        "stochastic_sampling": sampler.renoises,
    }


def pipeline_class(sampler: Sampler) -> str:
    """The class of diffusers with these times, positions and text. Raises UserError where there is none."""
    for name, values in PIPELINES.items():
        if all(
            getattr(sampler, key) == value for key, value in ({"schedule": "uniform", "causal": False} | values).items()
        ):
            return name
    raise UserError(
        f"diffusers has no LTX pipeline with the schedule {sampler.schedule} and "
        f"{'causal' if sampler.causal else 'plain'} positions: export a run with its release's sampler"
    )


# Values that a release's header must have where it has the key, as the network here has no others.
NETWORK = {
    "positional_embedding_type": "rope",
    "positional_embedding_theta": 10000.0,
    "positional_embedding_max_pos": [20, 2048, 2048],
    "timestep_scale_multiplier": 1000,
}
SAMPLERS: dict[str, ScheduleName] = {"Uniform": "uniform", "LinearQuadratic": "linear_quadratic"}
SCHEDULER = {"num_train_timesteps": 1000}
SCHEDULER_KEYS = {"sampler", "shifting", "base_resolution", "target_shift_terminal", "shift"}


def parse_header(config: Mapping[str, Any]) -> Sampler:
    """The sampler that the header of an original release's file describes, as its config of transformer and scheduler.

    Raises UserError naming a setting that is not supported.
    """
    transformer, scheduler = config.get("transformer", {}), config.get("scheduler", {})
    for part, settings in (("transformer", transformer), ("scheduler", scheduler)):
        if not isinstance(settings, dict):
            raise UserError(f"the file's header: {part}={settings!r} holds no settings: download it again")
    times = config.get("allowed_inference_steps") or ()
    if not isinstance(times, list | tuple) or not all(isinstance(t, int | float) and 0 < t <= 1 for t in times):
        raise UserError(f"the file's header: allowed_inference_steps={times!r} are no times: download it again")
    _check("transformer", transformer, NETWORK)
    _check("scheduler", scheduler, SCHEDULER)
    for key in sorted(key for key in scheduler.keys() - SCHEDULER_KEYS - SCHEDULER.keys() if not key.startswith("_")):
        raise _unsupported("scheduler", key, scheduler[key])
    if (schedule := scheduler.get("sampler") or "Uniform") not in SAMPLERS:
        raise _unsupported("scheduler", "sampler", schedule)
    if (shifting := scheduler.get("shifting")) not in (None, "SD3"):
        raise _unsupported("scheduler", "shifting", shifting)
    causal = bool(transformer.get("causal_temporal_positioning", False))
    return Sampler(
        follows_tokens=shifting == "SD3",
        # The terminal time is part of that shift.
        terminal=(shifting and scheduler.get("target_shift_terminal")) or 0.0,
        schedule=SAMPLERS[schedule],
        times=tuple(map(float, times)),
        causal=causal,
        text="ltx_masked" if causal else "ltx",
    )


def _check(part: str, settings: Mapping[str, Any], required: Mapping[str, Any]) -> None:
    for key, value in required.items():
        if settings.get(key, value) != value:
            raise _unsupported(part, key, settings[key])


def _unsupported(part: str, key: str, value: Any) -> UserError:
    return UserError(f"the file's header: {part}.{key}={value!r} is not supported: use a 2 B release of LTX-Video")
