"""Settings of an export."""

import dataclasses
from pathlib import Path

from export.coreml.compress import Weights
from export.estimate.tiles import fastest_tiles
from export.metadata import UNSTATED
from export.part import FP16
from export.phone.layout import LAYOUTS, Layout
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.sampling import Sampling

UNDISTILLED_STEPS = 4
BACKENDS = ("coreml", "coreai")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of an export."""

    weights: Weights = Weights()
    tiles: tuple[int, ...] = ()  # of each FFN: one number, or one for each block; none: the fastest by estimate
    cut_inputs: bool = False  # of each FFN: see TiledFfn
    steps: int = 0  # sampling steps; 0: see own_steps
    chunk_megabytes: float = 1000.0  # the largest chunk of the transformer, in fp16
    vae: Path | None = None  # a run whose decoder is exported in place of the run's own
    clips: tuple[str, ...] = ()  # shapes of clips, the run's own where there are none
    text_encoder: str = ""  # where the run's text encoder lies, as an EncoderName; an embedded one is found by itself
    text_precision: str = FP16  # of the text encoder: FP16, or FP32 where its values pass fp16's end
    backends: tuple[str, ...] = ("coreml",)  # of BACKENDS
    author: str = UNSTATED
    licence: str = UNSTATED  # of the weights
    widths: tuple[float, ...] = ()  # of an elastic run, the narrowest first: functions of one package
    max_memory: float = 0.0  # most MB that all widths' weights take in fp16; 0: any
    stream: bool = False  # the transformer as first and next chunk of a stream, in place of whole clips
    form: str = "phone"  # the transformer's layout, a key of LAYOUTS; the other networks have one for both
    prompt: str = "a red circle"  # of the golden arrays and the clip
    check: str = "clip"  # clip: every package and a whole clip; packages: every package; one: one of them

    def __post_init__(self) -> None:
        if unknown := [name for name in self.backends if name not in BACKENDS]:
            raise UserError(f"--backend={','.join(unknown)} is unknown: use {','.join(BACKENDS)}, or one of them")
        if self.weights.kind == "mixed" and "coreml" not in self.backends:
            raise UserError("--weights=mixed is measured on Core ML's packages: use --backend=coreml,coreai")

    @property
    def layout(self) -> Layout:
        """The transformer's layout."""
        return LAYOUTS[self.form]

    def tiles_of(self, model: DitConfig, tokens: int) -> tuple[int, ...]:
        """The tiles of each block. Raises UserError where their numbers differ."""
        depth = len(model.block_shapes)
        if not self.tiles:
            hidden = max(block.ffn for block in model.block_shapes)
            return (fastest_tiles(model.width, hidden, tokens) if self.layout.in_pieces else 1,) * depth
        if len(self.tiles) not in (1, depth):
            raise UserError(f"--tiles names {len(self.tiles)} numbers: use one, or {depth}, one for each block")
        return self.tiles * depth if len(self.tiles) == 1 else self.tiles


def own_steps(sampling: Sampling) -> int:
    """The steps of a run that is sampled without guidance, as an app does, or by a table; else UNDISTILLED_STEPS."""
    return sampling.steps if sampling.guidance == 1 or sampling.reuse else UNDISTILLED_STEPS


def app_solver(sampling: Sampling) -> str:
    """The solver of an app: it noises x0 afresh for students that were trained for it, and takes Euler steps else."""
    return "renoise" if sampling.solver == "renoise" else "euler"


def distillation_warnings(sampling: Sampling, steps: int) -> list[str]:
    """One line where the exported steps, which are unguided, are not those that the run was made for."""
    if sampling.guidance != 1:
        return [f"{steps} unguided steps of a model that was not distilled: expect poor clips, distil it first"]
    if sampling.steps > steps:
        return [f"{steps} steps of a model that was made for {sampling.steps}: expect poor clips, distil it further"]
    return []
