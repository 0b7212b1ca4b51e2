"""Settings of generation."""

import dataclasses
from itertools import pairwise
from typing import Annotated, Literal

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import CountOrZero, Decay, GuidanceScale, PositiveShare, Range, Share, SolverSteps
from mobile_video_jax.dit.step_table import SOLVERS as TABLE_SOLVERS
from mobile_video_jax.models.config import ScheduleName, SolverName

ShiftOrOwn = Annotated[float, Range(0, 1000)]
ScheduleOrOwn = Literal["", "uniform", "linear_quadratic", "thousandth"]
TerminalOrOwn = Annotated[float, Range(0, 1, open="high", also=-1)]


@dataclasses.dataclass(frozen=True)
class SampleConfig(Config):
    """Settings of a sampler, and of decoding what it gives. A run's own are Generator.sample_config()."""

    steps: SolverSteps  # solver steps
    guidance: GuidanceScale  # guidance scale; 1 is none and costs half
    shift: ShiftOrOwn = 0.0  # time shift; above 1 spends more steps on noise; 0: as the run was trained
    solver: SolverName = "euler"  # heun: second order, two passes; dpmpp_2m, unipc: one; renoise: x0, noised afresh
    chunk: CountOrZero = 0  # latent frames decoded at a time; 0: a clip in one pass
    tile: CountOrZero = 0  # pixels a side of a decoded tile; 0: whole frames
    overlap: CountOrZero = 0  # pixels that neighbouring tiles share
    negative_prompt: str = ""  # caption that guidance moves away from, in place of the empty one
    guidance_low: Share = 0.0  # least time (0 is data) at which guidance acts
    guidance_high: Share = 1.0  # greatest time (1 is noise) at which guidance acts
    guidance_rescale: Share = 0.0  # share of the contrast that guidance adds which is taken back
    path_drop: bool = False  # guide away from the network without its middle blocks (dit/middle.py), which costs less
    terminal: TerminalOrOwn = -1.0  # time at which the last step starts; 0: where the grid says; -1: as trained
    schedule: ScheduleOrOwn = ""  # times before the shift, a key of diffusion.timesteps.SCHEDULES; empty: as trained
    times: tuple[PositiveShare, ...] = ()  # times at which the steps start, from 1 down; empty: those of the schedule
    reuse: tuple[str, ...] = ()  # what each step computes (dit/step_table.py); empty: all
    guidance_2: GuidanceScale = 0.0  # guidance scale of the expert of low noise; 0: as guidance
    boundary: Decay = 0.0  # time below which the expert of low noise is evaluated; 0: one network for all times
    image_noise: Share = 0.0  # deviation of the noise in a given first frame at time 1; it falls with the time squared

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_reuse()
        if self.path_drop and (self.reuse or self.boundary):
            raise UserError("path_drop is for one network that computes all of its blocks: leave it out")
        if self.guidance_2 and not self.boundary:
            raise UserError("guidance_2 is of a second expert, which this run does not have: leave it out")
        if not self.times:
            return
        if self.times[0] != 1 or any(t <= after for t, after in pairwise(self.times)):
            times = ",".join(map(str, self.times))
            raise UserError(f"times={times}: let them fall from 1 (noise); the last step ends at 0 (data)")
        if len(self.times) != self.steps:
            raise UserError(f"{len(self.times)} times make as many steps, not {self.steps}: name one of the two")

    def _check_reuse(self) -> None:
        if not self.reuse:
            return
        if len(self.reuse) != self.steps:
            raise UserError(
                f"this model reuses outputs by a table of {len(self.reuse)} steps, not {self.steps}: leave the steps "
                "out, or name the run that it was made from"
            )
        if self.boundary:
            raise UserError("a reuse table is for one network, not for two experts: leave one of the two out")
        if self.solver not in TABLE_SOLVERS:
            raise UserError(
                f"solver '{self.solver}' evaluates the network twice a step, a reuse table is for once: "
                f"use {', '.join(TABLE_SOLVERS)}"
            )
        if self.guidance != 1 and (self.guidance_low, self.guidance_high) != (0.0, 1.0):
            raise UserError("a reuse table needs guidance at all times: leave out guidance_low and guidance_high")

    def with_times(self, *, shift: float, terminal: float, schedule: ScheduleName) -> "SampleConfig":
        """These settings, with the times of a run where they name none."""
        end = terminal if self.terminal < 0 else self.terminal
        return dataclasses.replace(self, shift=self.shift or shift, terminal=end, schedule=self.schedule or schedule)
