"""Trains any stage: python -m launch.train --config=configs/STAGE.py:VARIANT --workdir=DIR [--config.key=value ...]

Resumes by itself from the newest checkpoint in DIR. SIGTERM and Ctrl-C save the step and exit with status 143 and 130,
a second Ctrl-C exits at once. A step whose loss or gradient is not finite is skipped; too many in a row end the run
with status 3. --override=optimizer.learning_rate lets a resumed run take another rate than before, and records it.

--executable starts with the step that launch.compile --store wrote; use no such file that you did not make. Everything
else that is compiled, and the step without it, comes from --compilation_cache where an earlier start left it.
"""

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.stages.config import training_class

CONFIG = cli.define_config(training_class, "The stage's config.")
WORKDIR = cli.require_path("workdir", "The run directory, new or to resume.")
EXECUTABLE = cli.define_path("executable", "The compiled step of this config and these devices.")
OVERRIDE = flags.DEFINE_multi_string("override", [], "A key of the optimizer that may change on resume; repeatable.")
COMPILATION_CACHE = cli.define_path("compilation_cache", "A folder where compiled programs are kept.")


def main() -> None:
    import jax

    from mobile_video_jax.pods.automatic import automatic_config
    from mobile_video_jax.stages.registry import stage_of
    from mobile_video_jax.train.loop import train

    if COMPILATION_CACHE.value:
        jax.config.update("jax_compilation_cache_dir", str(COMPILATION_CACHE.value))
    config = automatic_config(CONFIG.value, jax.devices(), CONFIG.changed, WORKDIR.value)
    cli.finish(WORKDIR.value, train(stage_of(config), WORKDIR.value, EXECUTABLE.value, OVERRIDE.value))


if __name__ == "__main__":
    cli.run(main, config=CONFIG, distributed=True)
