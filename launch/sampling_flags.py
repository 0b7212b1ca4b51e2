"""The flags of every command that draws clips."""

from typing import Any, get_args

from absl import flags

from mobile_video_jax.models.config import SolverName
from mobile_video_jax.models.run import Run

VAE = flags.DEFINE_string("vae", None, "A VAE run whose decoder is used instead, such as a smaller one for phones.")
STEPS = flags.DEFINE_integer("steps", None, "Solver steps; the run's own if not given.")
GUIDANCE = flags.DEFINE_float("guidance", None, "Guidance scale, 1 is none and costs half; the run's own if not given.")
LOW = flags.DEFINE_float("guidance_low", 0.0, "The least time (0 is data) at which guidance acts.")
HIGH = flags.DEFINE_float("guidance_high", 1.0, "The greatest time (1 is noise) at which guidance acts.")
RESCALE = flags.DEFINE_float("guidance_rescale", 0.0, "0..1; above 0 takes back the contrast that guidance adds.")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to show; it takes the place of the empty caption.")
SHIFT = flags.DEFINE_float("shift", None, "Time shift; above 1 spends more steps on noise; as trained if not given.")
SOLVER = flags.DEFINE_enum(
    "solver",
    None,
    get_args(SolverName),
    "euler; heun: second order, two passes a step; dpmpp_2m: one; the run's own if not given.",
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Clips drawn at once, rounded up to whole devices.", lower_bound=1)
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the transformer's weights.", lower_bound=1)
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "", "Where the run's text encoder lies: clip:, t5: or ltx:FOLDER.")
CHUNK = flags.DEFINE_integer("chunk", 0, "Latent frames coded at a time; 0 codes a clip in one pass.", lower_bound=0)
TILE = flags.DEFINE_integer("tile", 0, "Pixels a side of a coded tile; 0 codes whole frames.", lower_bound=0)
OVERLAP = flags.DEFINE_integer("overlap", 0, "Pixels that neighbouring tiles share.", lower_bound=0)


def vae() -> Run | None:
    """The VAE run that --vae names."""
    return Run.open(VAE.value, "vae") if VAE.value else None


def sampling() -> dict[str, Any]:
    """The changes of a run's own sampling (Generator.sample_config) that the flags ask for; None is no change."""
    return {
        "steps": STEPS.value,
        "guidance": GUIDANCE.value,
        "shift": SHIFT.value,
        "solver": SOLVER.value,
        "negative_prompt": NEGATIVE.value,
        "guidance_low": LOW.value,
        "guidance_high": HIGH.value,
        "guidance_rescale": RESCALE.value,
        "chunk": CHUNK.value,
        "tile": TILE.value,
        "overlap": OVERLAP.value,
    }
