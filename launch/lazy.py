"""Makes sampling cheaper: python -m launch.lazy --model=RUN --target=0.3 --out=DIR [--config=configs/lazy.py:VARIANT]

Writes a run that every command samples with the same weights, and whose steps do without some self-attentions and FFNs
so that the share --target of the FLOPs is saved. Of a guided run some steps reuse all outputs of the step before, those
by which finished clips change least (--config.method=gates: modules of trained gates, LazyDiT, arXiv 2412.12444). An
unguided few-step student leaves modules out whose absence changes its velocities and features least; train it on with
configs/distill.py and --config.init_from=DIR.

With --config.across=chunks every second chunk of a causal run's streams has outputs of the same step of the chunk
before, of modules by which a step changes least.

The table is in run.json under sampling.reuse, a text per step with two letters per block (dit/step_table.py). Started
again, the command resumes.
"""

import dataclasses

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import PositiveShare
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.stages.config import LazyTraining

CONFIG = cli.define_config(lambda values: LazyTraining, "How modules are chosen.", default=lambda: "lazy")
MODEL = flags.DEFINE_string("model", "", "A transformer's run directory.")
CHECKPOINT = cli.define_checkpoint("model")
DATA = flags.DEFINE_string("data", "", "Encoded clips to train gates and to score on; those of the run if empty.")
TARGET = cli.define_number("target", 0.3, PositiveShare, "The share of the cost of sampling that is saved.")
OUT = cli.define_path("out", "The folder of the new run.", local=True)


def main() -> None:
    if not MODEL.value or OUT.value is None:
        raise UserError("name the transformer with --model=RUN and a new folder with --out=DIR")
    from mobile_video_jax.core.lock import only_writer
    from mobile_video_jax.lazy.run import make_lazy
    from mobile_video_jax.models.run import Run

    run, out = Run.open(storage_path(MODEL.value), **CHECKPOINT.value), OUT.value
    config = dataclasses.replace(CONFIG.value, data=DATA.value or CONFIG.value.data)
    with only_writer(out):
        summary = make_lazy(config, run, TARGET.value, out)
    for i, step in enumerate(summary["table"]):
        print(f"step {i + 1:3}  {step}")
    cli.finish(out, summary)


if __name__ == "__main__":
    cli.run(main, config=CONFIG)
