"""Compares VAEs: python -m launch.ablate --study=compression --out=DIR [--config.key=value ...]

A study is a grid of compressions, losses and seeds. Each cell is a folder OUT/cells/NAME with a trained VAE, its
latents, a small transformer trained on them for a fixed budget, and result.json. Started again it goes on where it
stopped, and cells may be added. Several processes or hosts share a study with --workers=N --worker=0 ... N-1 on one
file system, where worker 0 draws the clips. Writes table.csv, table.json, report.html and PNG plots of the finished
cells.
"""

import json
import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from launch import cli
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.stages.ablate import StudyConfig, plan, run_study
from mobile_video_jax.stages.ablate_report import write_study

STUDY = flags.DEFINE_string("study", "compression", "The study: a variant of configs/ablate.py.")
CONFIG = config_flags.DEFINE_config_file("config", None, "The study's config, where --study does not name it.")
OUT = flags.DEFINE_string("out", None, "The study's folder, new or to go on with.", required=True)
WORKER = flags.DEFINE_integer("worker", 0, "Which share of the cells this process runs.")
WORKERS = flags.DEFINE_integer("workers", 1, "How many processes share the study.")
PLAN = flags.DEFINE_bool("plan", False, "Only print what the cells will cost.")
PEAK = flags.DEFINE_float("peak_tflops", 989.0, "With --plan: the machine's peak; an H100's in bf16 is 989.")
UTILIZATION = flags.DEFINE_float("utilization", 0.3, "With --plan: the share of the peak that training reaches.")


def main() -> None:
    out, study = Path(OUT.value), from_mapping(StudyConfig, CONFIG.value.to_dict())
    if PLAN.value:
        return print_plan(study, 1e12 * PEAK.value * UTILIZATION.value)
    results = run_study(study, out, worker=WORKER.value, workers=WORKERS.value)
    cli.finish(out / "table.csv", write_study(STUDY.value, study, results, out))


def print_plan(study: StudyConfig, flops_per_second: float) -> None:
    """A line a cell with its training FLOPs and the hours they take at a speed; then all as JSON."""
    rows = plan(study)
    for row in rows:
        row["hours"] = (row["vae_flops"] + row["dit_flops"]) / flops_per_second / 3600
        print(
            f"{row['name']:40}VAE {row['vae_flops']:.2e}  transformer {row['dit_flops']:.2e} FLOP  {row['hours']:.2f} h"
        )
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
