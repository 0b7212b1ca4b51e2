"""Trains any stage: python -m launch.train --config=configs/STAGE.py:VARIANT --workdir=DIR [--config.key=value ...]

Resumes by itself from the newest checkpoint in DIR. SIGTERM and Ctrl-C save the step and exit with status 143 and 130,
a second Ctrl-C exits at once; a loss that is not finite stops the run with status 1.

--executable starts with the step that launch.compile --store left; use no such file that you did not make. Everything
else that is compiled, and the step without it, comes from --compilation_cache where an earlier start left it.
"""

import jax
from absl import flags
from ml_collections import config_flags

from mobile_video_jax import cli
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.loop import train

CONFIG = config_flags.DEFINE_config_file("config", None, "The stage's config, FILE.py:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run directory, new or to go on with.", required=True)
EXECUTABLE = flags.DEFINE_string("executable", None, "The compiled step of this config and these devices.")
COMPILATION_CACHE = flags.DEFINE_string("compilation_cache", None, "A folder where compiled programs are kept.")


def main() -> None:
    run, executable = storage_path(WORKDIR.value), storage_path(EXECUTABLE.value) if EXECUTABLE.value else None
    if COMPILATION_CACHE.value:
        jax.config.update("jax_compilation_cache_dir", COMPILATION_CACHE.value)
    cli.finish(run, train(build_stage(CONFIG.value.to_dict()), run, executable))


if __name__ == "__main__":
    cli.run(main, distributed=True)
