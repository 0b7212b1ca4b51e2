"""Studies: python -m launch.ablate --study=NAME --out=DIR [--config.key=value ...]

A study is a grid of ways to do one thing, with seeds; its cells are folders OUT/cells/NAME with what was trained and
result.json. Started again it goes on where it stopped, and cells may be added. Several processes or hosts share a study
with --workers=N --worker=0 ... N-1 on one file system, where worker 0 makes what all cells share. Writes table.csv,
table.json, report.html and PNG plots of the finished cells.

NAME is a variant of configs/ablate.py, which says what each takes. compression and objectives train a VAE a cell, its
latents and a small transformer on them; pruning cuts one transformer down in several ways and recovers it;
distillation teaches a recovered one to draw in four steps in several ways.
"""

import contextlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from mobile_video_jax import cli
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.lock import only_writer
from mobile_video_jax.studies.compression import plan, run_study
from mobile_video_jax.studies.compression_report import write_study
from mobile_video_jax.studies.config import DistillationStudy, PruningStudy, StudyConfig
from mobile_video_jax.studies.distillation import plan_distillation, run_distillation_study
from mobile_video_jax.studies.distillation_report import write_distillation_study
from mobile_video_jax.studies.pruning import plan_pruning, run_pruning_study
from mobile_video_jax.studies.pruning_report import write_pruning_study

STUDY = flags.DEFINE_string("study", "compression", "The study: a variant of configs/ablate.py.")
CONFIG = config_flags.DEFINE_config_file("config", None, "The study's config, where --study does not name it.")
OUT = flags.DEFINE_string("out", None, "The study's folder, new or to go on with.", required=True)
WORKER = flags.DEFINE_integer("worker", 0, "Which share of the cells this process runs.")
WORKERS = flags.DEFINE_integer("workers", 1, "How many processes share the study.")
PLAN = flags.DEFINE_bool("plan", False, "Only print what the cells will cost.")
PEAK = flags.DEFINE_float("peak_tflops", 989.0, "With --plan: the machine's peak; an H100's in bf16 is 989.")
UTILIZATION = flags.DEFINE_float("utilization", 0.3, "With --plan: the share of the peak that training reaches.")


# Of each kind of study: its config, what it will cost, how it is run, and what it leaves.
KINDS: dict[str, tuple[type, Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "vae": (StudyConfig, plan, run_study, write_study),
    "pruning": (PruningStudy, plan_pruning, run_pruning_study, write_pruning_study),
    "distillation": (DistillationStudy, plan_distillation, run_distillation_study, write_distillation_study),
}


def main() -> None:
    out, values = Path(OUT.value), CONFIG.value.to_dict()
    config, planned, run, write = KINDS[values["kind"]]
    study: Any = from_mapping(config, values)
    if PLAN.value:
        return print_plan(planned(study), 1e12 * PEAK.value * UTILIZATION.value)
    # Workers write cells of their own, and each run in them has its lock.
    with only_writer(out) if WORKERS.value == 1 else contextlib.nullcontext():
        results = run(study, out, worker=WORKER.value, workers=WORKERS.value)
        summary = write(STUDY.value, study, results, out)
    cli.finish(out / "table.csv", summary)


def print_plan(rows: list[dict[str, Any]], flops_per_second: float) -> None:
    """A line a cell with its FLOPs, by what they are spent on, and the hours they take at a speed; then all as JSON."""
    for row in rows:
        parts = {key: value for key, value in row.items() if key.endswith("_flops")}
        row["hours"] = sum(parts.values()) / flops_per_second / 3600
        spent = "  ".join(f"{key.removesuffix('_flops')} {value:.2e}" for key, value in parts.items())
        print(f"{row['name']:40}{spent} FLOP  {row['hours']:.2f} h")
    print(json.dumps({"cells": rows, "hours": sum(row["hours"] for row in rows), "flops_per_second": flops_per_second}))


def with_config(arguments: list[str]) -> list[str]:
    """The arguments with the config that --study names put first, where --config.key=value can change it."""
    if any(argument.startswith("--config=") for argument in arguments):
        return arguments
    study = re.search(r" --?study[= ](\S+)", " ".join(arguments))
    return [arguments[0], f"--config=configs/ablate.py:{study[1] if study else STUDY.default}", *arguments[1:]]


if __name__ == "__main__":
    sys.argv = with_config(sys.argv)
    cli.run(main)
