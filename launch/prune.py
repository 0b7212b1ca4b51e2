"""Prunes a transformer: python -m launch.prune --model=RUN --data=LATENTS --out=DIR [--config=configs/prune.py:VARIANT]

Scores blocks, attention heads and FFN channels by how much the velocities and hidden features change without each,
searches for what to keep within a budget, and leaves a run that every command accepts and that configs/recover.py
starts from. Writes report.html, report.json, sensitivity.png and kept.png beside it. Started again, it goes on.

--plan-only prints what would be left and what scoring costs, from shapes alone: --model may then be the config of a
transformer that is not trained yet, --model=configs/dit.py:server.
"""

import json
import runpy
import time
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from mobile_video_jax import cli
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.lock import only_writer
from mobile_video_jax.core.storage import local_path, storage_path
from mobile_video_jax.cost.tpu.topology import CHIPS
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.plan import costs_of, make_plan, planned_shapes, scoring_flops, sizes_of
from mobile_video_jax.prune.report import PAGE, write_prune_report
from mobile_video_jax.prune.run import prune
from mobile_video_jax.stages.config import DitTraining

CONFIG = config_flags.DEFINE_config_file("config", "configs/prune.py", "How to prune.")
MODEL = flags.DEFINE_string("model", "", "A transformer's run directory; with --plan-only also FILE.py:VARIANT.")
DATA = flags.DEFINE_string("data", "", "Encoded clips for calibration; those the model was trained on if empty.")
OUT = flags.DEFINE_string("out", "", "The folder of the smaller model.")
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the weights.", lower_bound=1)
PLAN_ONLY = flags.DEFINE_bool("plan-only", False, "Only print what would be left and what scoring costs.")
UTILIZATION = flags.DEFINE_float("utilization", 0.4, "With --plan-only: the share of the peak that scoring reaches.")


def main() -> None:
    config = from_mapping(PruneConfig, CONFIG.value.to_dict())
    if PLAN_ONLY.value:
        return print_plan(config)
    if not (MODEL.value and OUT.value):
        raise UserError("name the transformer with --model=RUN and a new folder with --out=DIR")
    started, out = time.monotonic(), local_path(OUT.value)
    with only_writer(out):
        pruned = prune(config, storage_path(MODEL.value), DATA.value, out, fsdp=FSDP.value)
        numbers = write_prune_report(pruned, out, time.monotonic() - started)
    print(_table({name: numbers["models"][name] for name in ("before", pruned.chosen)}))
    kept = numbers["models"][pruned.chosen]
    cli.finish(out / PAGE, {"out": str(out), "model": kept, "kd_loss": pruned.losses, "held_out_loss": pruned.held_out})


def print_plan(config: PruneConfig) -> None:
    """What is left after all levels, and the chip-hours of scoring, as a table and as JSON."""
    if not MODEL.value:
        raise UserError("say what to plan for with --model=RUN or --model=configs/dit.py:VARIANT")
    is_config = Path(MODEL.value.partition(":")[0]).suffix == ".py"
    plan = make_plan(config, _denoiser_of(MODEL.value) if is_config else Run.open(MODEL.value).denoiser)
    models = {"before": plan.space.units.shapes, "after": planned_shapes(plan)}
    found = {name: sizes_of(shapes) | costs_of(plan, shapes) for name, shapes in models.items()}
    flops = scoring_flops(config, plan)
    hours = {name: flops / (chip.flops * UTILIZATION.value) / 3600 for name, chip in CHIPS.items()}
    print(_table(found))
    print(f"scoring: {flops:.2e} FLOP; at {UTILIZATION.value:.0%} of the peak (an estimate) chip-hours:", end=" ")
    print(", ".join(f"{name} {value:.3g}" for name, value in hours.items()))
    print(json.dumps({**found, "limits": dict(plan.limits), "scoring_flops": flops, "chip_hours": hours}))


def _denoiser_of(config: str) -> Denoiser:
    """The transformer of a config file's variant."""
    path, _, variant = config.partition(":")
    try:
        values = runpy.run_path(path)["get_config"](*[variant] * bool(variant)).to_dict()
    except (OSError, KeyError, TypeError) as error:
        raise UserError(f"--model={config} names no config ({error}): use --model=configs/dit.py:VARIANT") from None
    return Denoiser(from_mapping(DitTraining, values))


def _table(models: dict[str, dict[str, Any]]) -> str:
    rows = [["", *models]]
    for key in next(iter(models.values())):
        values = (model[key] for model in models.values())
        rows.append([key, *(f"{value:,.6g}" if value < 1e6 else f"{value:,.0f}" for value in values)])
    return "\n".join(f"{row[0]:14}" + "".join(f"{cell:>24}" for cell in row[1:]) for row in rows)


if __name__ == "__main__":
    cli.run(main)
