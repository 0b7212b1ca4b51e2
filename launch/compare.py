"""Compares runs with the first: python -m launch.compare --runs A B C --out=DIR [--data=DIR] [--json]

Each is a folder that launch.evaluate wrote, or one that launch.vbench wrote from VBench's results, or a run directory,
which is evaluated first, on --data and with the defaults of launch.evaluate, into DIR/evaluations/NAME. Writes scores,
paired differences with 95 % intervals, training curves, settings that differ and clips side by side as report.html,
report.json and table.csv. Refuses runs of other stages, data, splits, clips or prompts.
"""

import json
import re
import sys

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.claim import check_holds_only
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.lock import only_writer
from mobile_video_jax.core.storage import local_path, storage_path
from mobile_video_jax.data.cache import data_folder
from mobile_video_jax.evaluate.compare import compare_evaluations
from mobile_video_jax.evaluate.compare_report import EVALUATIONS, OUTPUTS, difference_table, write_comparison
from mobile_video_jax.evaluate.evaluation import PAGE
from mobile_video_jax.evaluate.run import evaluated_runs

RUNS = flags.DEFINE_multi_string("runs", None, "Two folders or more: A B, or A,B.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder of the report.", required=True)
DATA = flags.DEFINE_string("data", None, "A prepared video data set, for run directories.")
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def main() -> None:
    out, paths = local_path(OUT.value), [storage_path(path) for value in RUNS.value for path in value.split(",")]
    if len(paths) < 2:
        raise UserError("name two runs or more: --runs A B")
    check_holds_only(out, OUTPUTS, "comparison")
    data = data_folder(DATA.value) if DATA.value else None
    with only_writer(out):
        comparison = compare_evaluations(evaluated_runs(paths, data, out / EVALUATIONS))
        numbers = write_comparison(comparison, out)
    if JSON.value:
        print(json.dumps(numbers))
        return
    print(difference_table(comparison).as_text())
    cli.finish(out / PAGE, numbers)


def with_runs(arguments: list[str]) -> list[str]:
    """The arguments with --runs put before each of the values that follow it: absl takes one value a flag."""
    spread, following = [], False
    for argument in arguments:
        if argument.startswith("-"):
            following = re.fullmatch("--?runs(=.*)?", argument) is not None
        elif following:
            argument = f"--runs={argument}"
        if argument.lstrip("-") != "runs":
            spread.append(argument)
    return spread


if __name__ == "__main__":
    sys.argv = with_runs(sys.argv)
    cli.run(main)
