"""Sampling settings of a trained denoiser, as its run says."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from mobile_video_jax.core.config import Config, from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Decay, GuidanceScale, PositiveShare, Range, Share, SolverSteps
from mobile_video_jax.models.config import SolverName

FrameRate = Annotated[float, Range(0, 1000)]
ROUNDING = 1e-4  # of listed times


@dataclasses.dataclass(frozen=True)
class Sampling(Config):
    """Settings that a denoiser is sampled with unless a user says otherwise; `sampling` in run.json."""

    steps: SolverSteps = 40  # solver steps
    guidance: GuidanceScale = 5.0  # guidance scale; 1 is none
    guidance_2: GuidanceScale = 0.0  # guidance scale of the expert of low noise; 0: the same
    boundary: Decay = 0.0  # time below which the expert of low noise is evaluated; 0: one network for all times
    solver: SolverName = "euler"  # a solver of diffusion.samplers
    frame_rate: FrameRate = 0.0  # frames a second of its clips; 0: not known
    times: tuple[PositiveShare, ...] = ()  # the only times that it was distilled at, from 1 down; empty: any
    reuse: tuple[str, ...] = ()  # what each step computes (dit/step_table.py); empty: all
    image_noise: Share = 0.0  # deviation of the noise in a given first frame at time 1; it falls with the time squared

    def check(self, times: Iterable[float]) -> None:
        """Raises UserError for a time that is none of `times`, which are rounded to 4 digits in releases."""
        for t in times:
            if self.times and all(abs(t - listed) > ROUNDING for listed in self.times):
                listed = ",".join(map(str, self.times))
                raise UserError(f"this model was distilled at the times {listed}, not {t:.4g}: choose --times of them")


STANDARD = Sampling()


def sampling_of(record: Mapping[str, Any]) -> Sampling:
    """The sampling of a run's record. Older ones lack it; a distilled run then has its own steps, without guidance."""
    if "sampling" in record:
        return from_mapping(Sampling, record["sampling"], "sampling")
    steps = record["config"].get("sampling_steps")
    return Sampling(steps, guidance=1.0) if steps else STANDARD
