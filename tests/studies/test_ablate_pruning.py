"""The study of pruning: its cells, budgets, claims and table."""

import dataclasses
import json

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.prune.plan import make_plan, planned_shapes, sizes_of
from mobile_video_jax.studies.pruning import ARMS, Cell, cell_config, cells, plan_pruning, recovery_steps
from mobile_video_jax.studies.pruning_claims import against_draws, differences
from mobile_video_jax.studies.pruning_report import table_rows, write_pruning_study
from mobile_video_jax.studies.shrinking_config import PruningStudy
from tests.commands import run


@pytest.fixture(scope="module")
def study() -> PruningStudy:
    return from_mapping(PruningStudy, studies.get_config("pruning").to_dict())


def test_a_repeated_arm_has_a_cell_a_repeat_and_the_random_arm_one_a_draw(study):
    names = list(cells(study))
    assert len(names) == 1 + 2 * (3 * 4 + 10 + 9) and len(ARMS) == 13
    assert names[:3] == ["teacher-seed0", "tri-level-keep33-0-seed0", "block-keep33-0-seed0"]
    with pytest.raises(UserError, match=r"arms\[0\]=best: use tri-level or block"):
        from_mapping(PruningStudy, plain(study) | {"arms": ["best"]})


def test_all_arms_have_the_parameters_of_whole_blocks(study):
    """Block-only meets them exactly; others are within a step of one width below."""
    teacher = Denoiser(study.dit)
    counts = {}
    for arm in ("block", "tri-level", "random"):
        plan = make_plan(cell_config(study, Cell(arm, 0, 1 / 3), teacher), teacher)
        shapes = planned_shapes(plan)
        counts[arm] = plan.space.costs["parameters"].of(shapes)
        if arm == "block":
            assert sizes_of(shapes) == {"blocks": 4, "heads": 8, "cross_heads": 8, "ffn": 512}
    assert counts["random"] == counts["tri-level"] and 0.95 < counts["tri-level"] / counts["block"] <= 1


def test_pruning_in_rounds_ends_at_the_same_parameters(study):
    """Half of what goes goes first; the rest is a share of what is there then."""
    teacher, cell = Denoiser(study.dit), Cell("iterative", 0, 1 / 3)
    whole = cell_config(study, cell, teacher).budget.parameters
    first = cell_config(study, cell, teacher, gone=0.5).budget.parameters
    assert first == pytest.approx((1 + whole) / 2)
    plan = make_plan(cell_config(study, cell, teacher, gone=0.5), teacher)
    model = dataclasses.replace(study.dit.transformer, blocks=tuple(s.widths for s in planned_shapes(plan)), scan=False)
    smaller = Denoiser(dataclasses.replace(study.dit, model=model))
    then = cell_config(study, cell, teacher, model=smaller).budget.parameters
    cost = plan.space.costs["parameters"]
    assert then * cost.of(model.block_shapes) == pytest.approx(whole * cost.of(study.dit.transformer.block_shapes))


def test_recovery_takes_its_share_of_the_teachers_steps(study):
    assert [recovery_steps(study, steps) for steps in (100, 750, 2000)] == [16, 96, 240]


def test_the_plan_counts_scores_and_both_trainings(study):
    planned = dataclasses.replace(study, blocks_kept=(0.5,), repeats=1, draws=1, arms=("random", "block", "data-only"))
    rows = {row["name"].split("-keep50")[0]: row for row in plan_pruning(planned)}
    assert rows["block"]["score_flops"] > 0 == rows["random"]["score_flops"]
    assert rows["data-only"]["train_flops"] < rows["random"]["train_flops"] < rows["teacher-seed0"]["train_flops"]


def cell(arm: str, repeat: int, *losses: float, kept: float = 0.5) -> dict:
    sizes = {"blocks": 2, "heads": 2, "cross_heads": 2, "ffn": 64}
    curve = [{"step": 5 * i, "loss": loss} for i, loss in enumerate(losses)]
    shared = {"arm": arm, "seed": 0, "parameters": 10, "curve": curve}
    if arm == "teacher":
        return {**shared, "steps": 100, "right": 0.925}
    return {**shared, "kept": kept, "repeat": repeat, "sizes": sizes, "kd_loss": 1.0, "teacher_steps": 100, "steps": 5}


RESULTS = [
    cell("teacher", 0, 0.15),
    *(cell("random", i, 2.0 + i, 0.5 + 0.1 * i) for i in range(3)),
    *(cell("tri-level", i, 1.0, loss) for i, loss in enumerate((0.55, 0.45, 0.40))),
    *(cell("block", i, 1.5, loss) for i, loss in enumerate((0.60, 0.52, 0.44))),
]


def test_claims_have_a_rank_among_draws_and_an_interval_over_repeats():
    rows = [row for result in RESULTS for row in table_rows(result)]
    ranks = {(x.arm, x.share): (x.below, x.p) for x in against_draws(rows)}
    assert ranks["tri-level", 0.0] == (3, 1 / 4) and ranks["tri-level", 0.05] == (2, 2 / 4)
    assert ranks["block", 0.05][0] == 1
    [before, after] = differences(rows)
    assert (before.mean, before.low, before.high) == (-0.5, -0.5, -0.5)
    assert after.mean == pytest.approx(-0.16 / 3) and after.low < after.mean < after.high < 0 and after.repeats == 3


def test_the_table_has_a_row_a_point_and_the_page_the_claims(study, tmp_path):
    written = write_pruning_study("pruning", study, RESULTS, tmp_path)
    assert written["best"] == "tri-level at 50%" and written["finished"] == len(RESULTS)
    table = json.loads((tmp_path / "table.json").read_text())
    assert len(table["rows"]) == 1 + 2 * 9
    [group] = [g for g in table["summary"] if (g["arm"], g["share"]) == ("tri-level", 0.05)]
    assert group["loss"]["mean"] == pytest.approx(1.4 / 3) and group["seeds"] == 3
    page = (tmp_path / "report.html").read_text()
    assert "2 of 3" in page and "tri-level − block" in page and "92.5%" in page
    assert (tmp_path / "recovery.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_table_of_what_is_finished_is_written_on_its_own(tmp_path):
    for result, name in zip(RESULTS[:2], ("teacher-seed0", "random-keep50-0-seed0"), strict=True):
        write_json(tmp_path / "cells" / name / "result.json", result)
    done = run("launch.ablate", "--study=pruning", "--table", f"--out={tmp_path}")
    assert done.status == 0, done.err
    assert json.loads(done.out.splitlines()[-1]) | {"out": ""} == {
        **{"out": "", "cells": 63, "finished": 2, "best": "random at 50%"}
    }
    assert len(list(tmp_path.glob("cells/*"))) == 2 and (tmp_path / "report.html").exists()
