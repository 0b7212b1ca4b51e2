"""Settings of generation."""

import dataclasses
from typing import Literal

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import CountOrZero, Decay, GuidanceScale, Share, Shift, SolverSteps

Solver = Literal["euler", "heun", "dpmpp_2m"]


@dataclasses.dataclass(frozen=True)
class SampleConfig(Config):
    """Settings of a sampler, and of decoding what it gives."""

    steps: SolverSteps = 40  # solver steps
    guidance: GuidanceScale = 5.0  # guidance scale; 1 is none and costs half
    shift: Shift = 1.0  # time shift; above 1 spends more steps on noise
    solver: Solver = "euler"  # heun: second order, two passes a step; dpmpp_2m: second order, one
    chunk: CountOrZero = 0  # latent frames decoded at a time; 0: a clip in one pass
    tile: CountOrZero = 0  # pixels a side of a decoded tile; 0: whole frames
    overlap: CountOrZero = 0  # pixels that neighbouring tiles share
    negative_prompt: str = ""  # caption that guidance moves away from, in place of the empty one
    guidance_low: Share = 0.0  # least time (0 is data) at which guidance acts
    guidance_high: Share = 1.0  # greatest time (1 is noise) at which guidance acts
    guidance_rescale: Share = 0.0  # share of the contrast that guidance adds which is taken back
    terminal: Decay = 0.0  # time at which the last step starts; 0: where the grid says
