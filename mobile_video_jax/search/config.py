"""Settings of a search."""

import dataclasses
from typing import Annotated, get_args

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, CountOrZero, Range, Rate, Seed, Size
from mobile_video_jax.search.evolution import EvolutionConfig
from mobile_video_jax.unet.config import Temporal

Several = Range(1, 16)


@dataclasses.dataclass(frozen=True)
class SearchConfig(Config):
    """Settings of a search: the space, how shared weights are learned, and how layouts are evaluated."""

    kinds: Annotated[tuple[str, ...], Several] = ("full", "lcha", "ssa")  # kinds of attention that a block may have
    resolutions: Annotated[tuple[Size, ...], Several] = (1, 2)  # divisors of the token grid's rows and columns
    temporal: Annotated[tuple[Temporal, ...], Several] = get_args(Temporal)  # kinds of a U-Net's layers over time
    clip: str = ""  # frames x height x width in pixels of the clips that are searched for; the model's own if empty
    distill_steps: CountOrZero = 1000  # steps that each choice's variants, or all layers over time, learn before
    distill_rate: Rate = 1e-3  # Adam's learning rate of these steps
    tune_rate: Rate = 1e-4  # Adam's learning rate of the training steps that fidelities count
    clips: Annotated[int, Range(2, 1 << 20)] = 64  # held-out clips that losses are means over; at most all
    times: Count = 4  # times that each clip's loss is a mean over
    batch_clips: Count = 8  # clips in one program
    floor: Count = 3  # random layouts of the chosen one's cost that it is compared with
    seed: Seed = 0  # of noise, batches and random layouts
    evolution: EvolutionConfig = dataclasses.field(default_factory=EvolutionConfig)  # of --method=evolution

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clips % self.batch_clips:
            raise UserError(f"{self.clips} clips are no whole batches of {self.batch_clips}: change batch_clips")
