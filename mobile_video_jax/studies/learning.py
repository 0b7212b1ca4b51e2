"""Signs that what a study compares has been trained: its learning curve, and a floor that needs no training."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mobile_video_jax.train.metrics import read_metrics

POINTS = {"half": 0.5, "three_quarters": 0.75, "all": 1.0}  # of a training's steps
EVALUATIONS = 8  # in a training, so that each point has one near it
GAIN = 0.1  # dB in the last quarter, above which more steps would change the comparison


@dataclasses.dataclass(frozen=True)
class Learning:
    """Held-out PSNR in dB after parts of a training, that of the best linear code, and what follows from them."""

    psnr: dict[str, float]  # by POINTS, on validation clips
    test_psnr: float  # of the trained network, on test clips
    floor_psnr: float | None  # of the linear code, on test clips; None where training clips were too few

    @property
    def gain(self) -> float:
        """PSNR that the last quarter of the training added."""
        return self.psnr["all"] - self.psnr["three_quarters"]

    @property
    def verdict(self) -> str:
        """The reason why the network does not count as trained; empty where it does."""
        if self.floor_psnr is not None and self.test_psnr < self.floor_psnr:
            return f"{self.floor_psnr - self.test_psnr:.1f} dB below a linear code"
        if self.gain > GAIN:
            return f"gained {self.gain:.1f} dB in the last quarter"
        return ""


def evaluation_period(steps: int) -> int:
    """Steps between evaluations, so that a training has EVALUATIONS of them."""
    return max(1, steps // EVALUATIONS)


def psnr_curve(phases: Sequence[Path]) -> dict[str, float]:
    """Held-out PSNR at POINTS of a training in one or more runs: the last value before each."""
    values: list[tuple[int, float]] = []
    for run in phases:
        before = values[-1][0] if values else 0
        values += [(before + line["step"], line["eval_psnr"]) for line in read_metrics(run) if "eval_psnr" in line]
    steps = values[-1][0]
    return {
        name: [value for step, value in values if step <= max(share * steps, values[0][0])][-1]
        for name, share in POINTS.items()
    }
