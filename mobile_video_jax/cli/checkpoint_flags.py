"""The flags that choose a checkpoint, for every command that reads a run."""

import dataclasses
from typing import Any

from absl import flags

from mobile_video_jax.cli.flag_types import define_number
from mobile_video_jax.core.ranges import CountOrZero

flags.disclaim_key_flags()  # they belong to the commands that define them


@dataclasses.dataclass(frozen=True)
class CheckpointFlags:
    """The flags --step and --best."""

    step: flags.FlagHolder[int | None]
    best: flags.FlagHolder[bool]

    @property
    def value(self) -> dict[str, Any]:
        """The arguments `step` and `best` of Run.open."""
        return {"step": self.step.value, "best": self.best.value}


def define_checkpoint(run: str) -> CheckpointFlags:
    """The flags for a checkpoint of the run that the flag `run` names."""
    return CheckpointFlags(
        define_number("step", None, CountOrZero, f"The checkpoint of --{run} to read; the newest if not given."),
        flags.DEFINE_bool("best", False, f"Read the checkpoint of --{run} with the least evaluation loss."),
    )
