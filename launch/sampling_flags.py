"""The flags of every command that generates clips."""

from typing import TYPE_CHECKING, Any, get_args

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, CountOrZero, GuidanceScale, Share, Shift, Size, SolverSteps
from mobile_video_jax.models.config import SolverName

if TYPE_CHECKING:
    from mobile_video_jax.models.run import Run

CHECKPOINT = cli.define_checkpoint("model")
VAE = cli.define_path("vae", "A VAE run whose decoder is used instead, such as a smaller one for phones.", exists=True)
STEPS: flags.FlagHolder[int | None] = cli.define_number(
    "steps", None, SolverSteps, "Solver steps; the run's own if not given."
)
GUIDANCE: flags.FlagHolder[float | None] = cli.define_number(
    "guidance", None, GuidanceScale, "Guidance scale, 1 is none and costs half; the run's own if not given."
)
GUIDANCE_2: flags.FlagHolder[float | None] = cli.define_number(
    "guidance_2", None, GuidanceScale, "Guidance scale of a run's second expert, of low noise; that of --guidance if 0."
)
LOW = cli.define_number("guidance_low", 0.0, Share, "The least time (0 is data) at which guidance acts.")
HIGH = cli.define_number("guidance_high", 1.0, Share, "The greatest time (1 is noise) at which guidance acts.")
RESCALE = cli.define_number("guidance_rescale", 0.0, Share, "Above 0 takes back the contrast that guidance adds.")
PATH_DROP = flags.DEFINE_bool(
    "path_drop",
    False,
    "Guide away from the network without its middle blocks, at less cost (SPRINT); for runs trained with path_drop.",
)
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to show; it takes the place of the empty caption.")
SHIFT: flags.FlagHolder[float | None] = cli.define_number(
    "shift", None, Shift, "Time shift; above 1 spends more steps on noise; as trained if not given."
)
TIMES = flags.DEFINE_list(
    "times", None, "Times at which the steps start, from 1 (noise) down, as 1,0.9,0.5; the run's own if not given."
)
SOLVER = flags.DEFINE_enum(
    "solver",
    None,
    get_args(SolverName),
    "euler; heun: second order, two passes a step; dpmpp_2m, unipc: one; renoise: for students trained for it; "
    "the run's own if not given.",
)
IMAGE_NOISE: flags.FlagHolder[float | None] = cli.define_number(
    "image_noise",
    None,
    Share,
    "Noise in a clip's given first frame, which sets it in motion; the run's own if not given.",
)
BATCH_SIZE = cli.define_number("batch_size", 16, Count, "Clips generated at once, rounded up to whole devices.")
FSDP = cli.define_number("fsdp", 1, Size, "Devices that share one copy of the transformer's weights.")
TEXT_ENCODER = cli.define_located("text_encoder", "", "Where the run's text encoder lies: clip:, t5: or ltx:FOLDER.")
CHUNK = cli.define_number("chunk", 0, CountOrZero, "Latent frames coded at a time; 0 codes a clip in one pass.")
TILE = cli.define_number("tile", 0, CountOrZero, "Pixels a side of a coded tile; 0 codes whole frames.")
OVERLAP = cli.define_number("overlap", 0, CountOrZero, "Pixels that neighbouring tiles share.")


def vae() -> "Run | None":
    """The VAE run that --vae names."""
    from mobile_video_jax.models.run import Run

    return Run.open(VAE.value, "vae") if VAE.value else None


def sampling(*, images: bool = False) -> dict[str, Any]:
    """The changes of a run's own sampling (Generator.sample_config) that the flags ask for; None is no change.

    Raises UserError for --image_noise where no clip starts from an image.
    """
    if IMAGE_NOISE.value is not None and not images:
        raise UserError("--image_noise is in a given first frame, and no clip starts from an image: leave it out")
    return {
        "steps": STEPS.value,
        "times": _times(),
        "guidance": GUIDANCE.value,
        "guidance_2": GUIDANCE_2.value,
        "shift": SHIFT.value,
        "solver": SOLVER.value,
        "negative_prompt": NEGATIVE.value,
        "guidance_low": LOW.value,
        "guidance_high": HIGH.value,
        "guidance_rescale": RESCALE.value,
        "path_drop": PATH_DROP.value,
        "image_noise": IMAGE_NOISE.value,
        "chunk": CHUNK.value,
        "tile": TILE.value,
        "overlap": OVERLAP.value,
    }


def _times() -> tuple[float, ...] | None:
    """The times of --times, without a 0 at the end, where the last step ends in any case."""
    if not TIMES.value:
        return None
    try:
        times = [float(time) for time in TIMES.value]
    except ValueError:
        raise UserError(f"--times={','.join(TIMES.value)}: use numbers that fall from 1, as 1,0.9,0.5") from None
    return tuple(times[:-1] if times[-1] == 0 and len(times) > 1 else times)
