"""Runs a study: python -m launch.ablate --study=NAME --out=DIR [--config.key=value ...]

A study is a grid of ways to do one thing, with seeds; its cells are folders OUT/cells/NAME with what was trained and
result.json. Started again it resumes where it stopped, and cells may be added. A cell that fails is recorded in
failure.json and the others go on; the status is 1 then. Several processes or hosts share a study
with --workers=N --worker=0 ... N-1 on one file system: each takes cells that no other has claimed, and worker 0 makes
what all share. --cell=NAME runs one cell, with --distributed on all hosts of a job, of a study of VAEs, whose --out
and --config.data may be in a bucket (launch.tpu.job --study makes such jobs). Writes table.csv, table.json, report.html
and PNG plots of the finished cells; --table writes them alone, also while a study runs.

NAME is a variant of configs/ablate.py, which says what each takes; --config=configs/ablate.py:NAME is the same.
compression and objectives train a VAE a cell, its latents and a small transformer on them; pruning prunes one
transformer in several ways and recovers it; distillation teaches a recovered one to generate in four steps in several
ways.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.core.ranges import CountOrZero, Positive, PositiveShare, Size
from mobile_video_jax.studies.study_class import study_class

STUDY = flags.DEFINE_string("study", "compression", "The study: a variant of configs/ablate.py.")
CONFIG = cli.define_config(
    study_class, "The study's config, in place of --study.", default=lambda: f"ablate:{STUDY.value}"
)
OUT = cli.define_path("out", "The study's folder, new or to resume.")
CELL = flags.DEFINE_string("cell", "", "The one cell to run, of a study of VAEs; --table then collects all of them.")
WORKER = cli.define_number("worker", 0, CountOrZero, "Which of the workers this is; 0 makes what all cells share.")
WORKERS = cli.define_number("workers", 1, Size, "Processes that share the study.")
TABLE = flags.DEFINE_bool("table", False, "Only write the tables of the cells that are finished.")
PLAN = flags.DEFINE_bool("plan", False, "Only print what the cells will cost.")
PEAK = cli.define_number("peak_tflops", 989.0, Positive, "With --plan: the machine's peak; an H100's in bf16 is 989.")
UTILIZATION = cli.define_number(
    "utilization", 0.3, PositiveShare, "With --plan: the share of the peak that training reaches."
)


def main() -> None:
    from mobile_video_jax.core.claim import check_holds_some
    from mobile_video_jax.core.lock import only_writer
    from mobile_video_jax.core.progress import phase
    from mobile_video_jax.core.storage import ObjectPath
    from mobile_video_jax.studies.cells import RESULT, check_kind, finished
    from mobile_video_jax.studies.kinds import KINDS

    study, out = CONFIG.value, OUT.value
    kind = KINDS[study.kind]
    if PLAN.value:
        with phase("counting the FLOPs of every cell"):
            rows = kind.plan(study)
        return print_plan(rows, 1e12 * PEAK.value * UTILIZATION.value)
    if out is None:
        raise UserError("name the study's folder with --out=DIR; --plan needs none")
    if study.kind != "vae" and (CELL.value or isinstance(out, ObjectPath)):
        raise UserError("this study's cells share networks: leave out --cell, share it by --workers on one file system")
    check_holds_some(out, ("data", "shared.json", "cells", "table.json", "study.json"), "study")
    check_kind(study, out)
    if CELL.value:
        kind.run(study, out, only=CELL.value)
        leave_if_failed(out, CELL.value)
        return cli.finish(out / "cells" / CELL.value / RESULT, {"out": str(out), "cell": CELL.value})
    # Workers write cells of their own, and each run in them has its lock.
    with contextlib.nullcontext() if TABLE.value or WORKERS.value > 1 else only_writer(out):
        if TABLE.value:
            results = finished(list(kind.cells(study)), out)
            if not results:
                raise UserError(
                    f"none of this study's cells is finished in {out}: name its own folder, or leave out --table"
                )
        else:
            results = kind.run(study, out, worker=WORKER.value, workers=WORKERS.value)
        summary = kind.write(CONFIG.variant or STUDY.value, study, results, out)
    cli.finish(out / "table.csv", summary)
    leave_if_failed(out)


def leave_if_failed(out: Path, cell: str = "") -> None:
    """Ends with status 1 where cells failed, or this one."""
    from mobile_video_jax.studies.cells import FAILURE, failures

    if failed := [name for name in failures(out) if name == cell or not cell]:
        raise Stopped(f"error: {len(failed)} cells failed, see {out}/cells/{failed[0]}/{FAILURE}", status=1)


def duration(hours: float) -> str:
    """Hours, or minutes or seconds where there are few."""
    seconds = 3600 * hours
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if hours < 1 else f"{hours:.2f} h"


def print_plan(rows: list[dict[str, Any]], flops_per_second: float) -> None:
    """A line a cell with its FLOPs, by what they are spent on, and the hours they take at a speed; then all as JSON."""
    for row in rows:
        parts = {key: value for key, value in row.items() if key.endswith("_flops")}
        row["hours"] = sum(parts.values()) / flops_per_second / 3600
        spent = "  ".join(f"{key.removesuffix('_flops')} {value:.2e}" for key, value in parts.items())
        print(f"{row['name']:40}{spent} FLOP  {duration(row['hours'])}")
    print(json.dumps({"cells": rows, "hours": sum(row["hours"] for row in rows), "flops_per_second": flops_per_second}))


if __name__ == "__main__":
    cli.run(main, config=CONFIG, distributed=True)
