"""Choice of sampling steps that have all outputs of the step before, by what runs of such steps change."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mobile_video_jax.dit.step_table import BOTH, COMPUTED, MODULES, StepTable
from mobile_video_jax.lazy.costs import ModuleCosts

Run = tuple[int, int]  # the first step that reuses, from 1, and how many do in a row
LONGEST = 5  # steps in a row whose change is measured, if no more are needed


def most_reused(costs: ModuleCosts, steps: int, target: float) -> int:
    """The greatest number of steps that reuse all and save no more than the target."""
    return min(int(target * steps * costs.whole / costs.modules.sum() + 1e-9), steps - 1)


def longest_run(steps: int, reused: int) -> int:
    """The length of runs that is measured for `reused` steps, and one more, to fit behind the computed ones."""
    reused = min(reused + 1, steps - 1)
    return max(LONGEST, -(-reused // (steps - reused)))


def best_runs(errors: Mapping[Run, float], steps: int, reused: int) -> list[Run]:
    """The runs of so many steps in all, each behind a computed step, whose squared errors have the least sum.

    Errors of runs apart add up in squares as far as they do not depend on each other. Dynamic programming, exact.
    """
    # By step, those before it being decided and the last of them computed: by steps left to reuse, the sum and runs.
    best: dict[int, dict[int, tuple[float, tuple[Run, ...]]]] = {step: {0: (0.0, ())} for step in (steps, steps + 1)}
    lengths = range(1, 1 + max((length for _, length in errors), default=0))
    for step in range(steps - 1, 0, -1):
        options = [(left, found) for left, found in best[step + 1].items()]
        for run in ((step, length) for length in lengths if (step, length) in errors):
            for left, (total, runs) in best[step + run[1] + 1].items():
                options.append((left + run[1], (errors[run] + total, (run, *runs))))
        best[step] = {}
        for left, found in options:
            if left <= reused and (left not in best[step] or found < best[step][left]):
                best[step][left] = found
    return list(best[1][reused][1])


def table_of(runs: Sequence[Run], steps: int, depth: int) -> StepTable:
    """The table whose steps reuse all in these runs and compute all else."""
    reusing = {step for first, length in runs for step in range(first, first + length)}
    return tuple((BOTH if step in reusing else COMPUTED) * len(MODULES) * depth for step in range(steps))


def best_table(
    errors: Mapping[Run, float], costs: ModuleCosts, target: float, steps: int, error: Callable[[StepTable], float]
) -> tuple[StepTable, float]:
    """The table that saves the target with the least error(table) of those that are measured, and its error.

    It has whole steps alone, or one fewer and so many blocks of one more step as it takes: of every step its first or
    its last blocks are measured, then of the best step all blocks in a row.
    """
    depth, reused = len(costs.modules), most_reused(costs, steps, target)
    table = table_of(best_runs(errors, steps, reused), steps, depth)
    missing = target * steps * costs.whole - reused * costs.modules.sum()
    if missing <= 1e-9 * costs.whole:
        return table, error(table)
    blocks = _windows(costs, missing)
    ends = {table: 0 for table in [table_of(best_runs(errors, steps, reused + 1), steps, depth)]}
    for step in (step for step in range(1, steps) if set(table[step]) == {COMPUTED}):
        ends |= {_with_blocks(table, step, blocks[i]): step for i in (0, -1)}
    measured = {each: error(each) for each in ends}
    if step := ends[min(measured, key=measured.__getitem__)]:
        measured |= {each: error(each) for each in (_with_blocks(table, step, row) for row in blocks[1:-1])}
    best = min(measured, key=measured.__getitem__)
    return best, measured[best]


def _windows(costs: ModuleCosts, missing: float) -> list[range]:
    """Of every block the fewest in a row from there that cost as much as is missing, as far as there are as many."""
    sums = np.append(0.0, np.cumsum(costs.modules.sum(axis=1)))
    ends = np.searchsorted(sums, sums[:-1] + missing * (1 - 1e-9))
    return [range(first, end) for first, end in enumerate(ends.tolist()) if end < len(sums)]


def _with_blocks(table: StepTable, step: int, blocks: range) -> StepTable:
    row = "".join(
        (BOTH if block in blocks else COMPUTED) * len(MODULES) for block in range(len(table[0]) // len(MODULES))
    )
    return (*table[:step], row, *table[step + 1 :])
