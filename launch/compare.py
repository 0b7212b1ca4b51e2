"""Compares runs with the first: python -m launch.compare --runs A B C --out=DIR [--data=DIR] [--json]

Each is a folder that launch.evaluate wrote, or one that launch.vbench wrote from VBench's results, or a run directory,
which is evaluated first, on --data and with the defaults of launch.evaluate, into DIR/evaluations/NAME. Writes scores,
paired differences with 95 % intervals, training curves, settings that differ and clips side by side as report.html,
report.json and table.csv. Refuses runs of other stages, data, splits, clips or prompts.
"""

import json

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path

RUNS = flags.DEFINE_multi_string("runs", None, "Two folders or more: A B, or A,B.", required=True)
OUT = cli.require_path("out", "The folder of the report.", local=True)
CHECKPOINT = cli.define_checkpoint("runs")
DATA = cli.define_path("data", "A prepared video data set, for run directories.")
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def main(*more_runs: str) -> None:
    from mobile_video_jax.core.claim import check_holds_only
    from mobile_video_jax.core.lock import only_writer
    from mobile_video_jax.data.location import data_folder
    from mobile_video_jax.evaluate.compare import compare_evaluations
    from mobile_video_jax.evaluate.compare_report import EVALUATIONS, OUTPUTS, difference_table, write_comparison
    from mobile_video_jax.evaluate.evaluation import PAGE
    from mobile_video_jax.evaluate.run import evaluated_runs

    runs = [storage_path(path) for value in (*RUNS.value, *more_runs) for path in value.split(",")]
    if len(runs) < 2:
        raise UserError("name two runs or more: --runs A B")
    out = OUT.value
    check_holds_only(out, OUTPUTS, "comparison")
    data = data_folder(str(DATA.value)) if DATA.value else None
    with only_writer(out):
        comparison = compare_evaluations(evaluated_runs(runs, data, out / EVALUATIONS, **CHECKPOINT.value))
        numbers = write_comparison(comparison, out)
    if JSON.value:
        print(json.dumps(numbers))
        return
    print(difference_table(comparison).as_text())
    cli.finish(out / PAGE, numbers)


if __name__ == "__main__":
    cli.run(main, positional=True)
