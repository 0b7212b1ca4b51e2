"""The flags of every command that draws clips."""

from pathlib import Path
from typing import Any, get_args

from absl import flags

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.generate.config import SampleConfig, Solver

VAE = flags.DEFINE_string("vae", None, "A VAE run whose decoder is used instead, such as a smaller one for phones.")
STEPS = flags.DEFINE_integer("steps", 40, "Solver steps.")
GUIDANCE = flags.DEFINE_float("guidance", 5.0, "Guidance scale; 1 is none and costs half.")
LOW = flags.DEFINE_float("guidance_low", 0.0, "The least time (0 is data) at which guidance acts.")
HIGH = flags.DEFINE_float("guidance_high", 1.0, "The greatest time (1 is noise) at which guidance acts.")
RESCALE = flags.DEFINE_float("guidance_rescale", 0.0, "0..1; above 0 takes back the contrast that guidance adds.")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to show; it takes the place of the empty caption.")
SHIFT = flags.DEFINE_float("shift", None, "Time shift; above 1 spends more steps on noise; as trained if not given.")
SOLVER = flags.DEFINE_enum(
    "solver", "euler", get_args(Solver), "euler; heun: second order, two passes a step; dpmpp_2m: one."
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Clips drawn at once, rounded up to whole devices.", lower_bound=1)
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the transformer's weights.", lower_bound=1)
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "", "Where the run's text encoder lies: clip:, t5: or ltx:FOLDER.")
CHUNK = flags.DEFINE_integer("chunk", 0, "Latent frames coded at a time; 0 codes a clip in one pass.", lower_bound=0)
TILE = flags.DEFINE_integer("tile", 0, "Pixels a side of a coded tile; 0 codes whole frames.", lower_bound=0)
OVERLAP = flags.DEFINE_integer("overlap", 0, "Pixels that neighbouring tiles share.", lower_bound=0)


def vae() -> Path | None:
    """The VAE run that --vae names."""
    return storage_path(VAE.value) if VAE.value else None


def sample_config(**times: Any) -> SampleConfig:
    """How to draw, with the times of training (Generator.times) but for a --shift."""
    if SHIFT.value is not None:
        times["shift"] = SHIFT.value
    values = {
        "steps": STEPS.value,
        "guidance": GUIDANCE.value,
        "solver": SOLVER.value,
        "chunk": CHUNK.value,
        "tile": TILE.value,
        "overlap": OVERLAP.value,
        "negative_prompt": NEGATIVE.value,
        "guidance_low": LOW.value,
        "guidance_high": HIGH.value,
        "guidance_rescale": RESCALE.value,
    }
    return from_mapping(SampleConfig, values | times, "sampling")
