"""Trains any stage: python -m launch.train --config=configs/STAGE.py:VARIANT --workdir=DIR [--config.key=value ...]

Goes on by itself from the newest checkpoint in DIR. SIGTERM saves and leaves with
status 143; a loss that is not finite stops the run with status 1.
"""

import signal
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from launch import cli
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.loop import Preempted, TrainingDiverged, train

CONFIG = config_flags.DEFINE_config_file("config", None, "The stage's config, FILE.py:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run directory, new or to go on with.", required=True)


def main() -> None:
    run = Path(WORKDIR.value)
    try:
        summary = train(build_stage(CONFIG.value.to_dict()), run)
    except Preempted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except TrainingDiverged as failure:
        print("error:", failure, file=sys.stderr)
        sys.exit(1)
    cli.finish(run, summary)


if __name__ == "__main__":
    cli.run(main, distributed=True)
