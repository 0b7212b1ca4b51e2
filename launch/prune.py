"""Prunes a transformer: python -m launch.prune --model=RUN --data=LATENTS --out=DIR [--config=configs/prune.py:VARIANT]

Scores blocks, attention heads and FFN channels by how much the velocities and hidden features change without each,
searches for what to keep within a budget, and writes a run that every command accepts and that configs/recover.py
starts from. Writes report.html, report.json, sensitivity.png and kept.png beside it. Started again, it resumes.
--distributed scores on all hosts of a pod, with --out on a file system that they share.

--plan-only prints what would be left and what scoring costs, from shapes alone: --model may then be the config of a
transformer that is not trained yet, --model=configs/dit.py:server.
"""

import json
import time
from typing import Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import PositiveShare, Size
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.prune.config import PruneConfig

CONFIG = cli.define_config(lambda values: PruneConfig, "How to prune.", default=lambda: "prune")
MODEL = flags.DEFINE_string("model", "", "A transformer's run directory; with --plan-only also FILE.py:VARIANT.")
CHECKPOINT = cli.define_checkpoint("model")
DATA = flags.DEFINE_string("data", "", "Encoded clips for calibration; those the model was trained on if empty.")
OUT = cli.define_path("out", "The folder of the smaller model.", local=True)
FSDP = cli.define_number("fsdp", 1, Size, "Devices that share one copy of the weights.")
PLAN_ONLY = flags.DEFINE_bool("plan-only", False, "Only print what would be left and what scoring costs.")
UTILIZATION = cli.define_number(
    "utilization", 0.4, PositiveShare, "With --plan-only: the share of the peak that scoring reaches."
)


def main() -> None:
    if PLAN_ONLY.value:
        return print_plan(CONFIG.value)
    if not MODEL.value or OUT.value is None:
        raise UserError("name the transformer with --model=RUN and a new folder with --out=DIR")
    from mobile_video_jax.models.run import Run
    from mobile_video_jax.parallel.distributed import is_first, one_writer
    from mobile_video_jax.prune.report import PAGE, write_prune_report
    from mobile_video_jax.prune.run import prune

    started, out = time.monotonic(), OUT.value
    run = Run.open(storage_path(MODEL.value), **CHECKPOINT.value)
    with one_writer(out):
        pruned = prune(CONFIG.value, run, DATA.value, out, fsdp=FSDP.value)
        if not is_first():
            return
        numbers = write_prune_report(pruned, out, time.monotonic() - started)
    print(_table({name: numbers["models"][name] for name in ("before", pruned.chosen)}))
    model = numbers["models"][pruned.chosen]
    summary = {"out": str(out), "model": model, "kd_loss": pruned.losses, "held_out_loss": pruned.held_out}
    cli.finish(out / PAGE, summary)


def print_plan(config: PruneConfig) -> None:
    """Prints what remains after all levels, and the chip-hours of scoring, as a table and as JSON."""
    if not MODEL.value:
        raise UserError("say what to plan for with --model=RUN or --model=configs/dit.py:VARIANT")
    from mobile_video_jax.cost.tpu.topology import CHIPS
    from mobile_video_jax.prune.plan import costs_of, make_plan, named_denoiser, planned_shapes, scoring_flops, sizes_of

    plan = make_plan(config, named_denoiser(MODEL.value, **CHECKPOINT.value))
    models = {"before": plan.space.units.shapes, "after": planned_shapes(plan)}
    costs = {name: sizes_of(shapes) | costs_of(plan, shapes) for name, shapes in models.items()}
    flops = scoring_flops(config, plan)
    hours = {name: flops / (chip.flops * UTILIZATION.value) / 3600 for name, chip in CHIPS.items()}
    print(_table(costs))
    print(f"scoring: {flops:.2e} FLOP; at {UTILIZATION.value:.0%} of the peak (an estimate) chip-hours:", end=" ")
    print(", ".join(f"{name} {value:.3g}" for name, value in hours.items()))
    print(json.dumps({**costs, "limits": dict(plan.limits), "scoring_flops": flops, "chip_hours": hours}))


def _table(models: dict[str, dict[str, Any]]) -> str:
    rows = [["", *models]]
    for key in next(iter(models.values())):
        values = (model[key] for model in models.values())
        rows.append([key, *(f"{value:,.6g}" if value < 1e6 else f"{value:,.0f}" for value in values)])
    return "\n".join(f"{row[0]:14}" + "".join(f"{cell:>24}" for cell in row[1:]) for row in rows)


if __name__ == "__main__":
    cli.run(main, config=CONFIG, distributed=True)
