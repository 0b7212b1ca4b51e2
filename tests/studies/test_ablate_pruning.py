"""The study of pruning: its cells, budgets and table."""

import dataclasses
import json

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.studies.config import PruningStudy
from mobile_video_jax.studies.pruning import cells, plan_pruning
from mobile_video_jax.studies.pruning_report import write_pruning_study


def test_the_study_s_cells_budgets_and_table(tmp_path):
    study = from_mapping(PruningStudy, studies.get_config("pruning").to_dict())
    assert len(cells(study)) == 24
    with pytest.raises(UserError, match=r"arms\[0\]=best: use tri-level or block"):
        from_mapping(PruningStudy, plain(study) | {"arms": ["best"]})
    planned = dataclasses.replace(study, seeds=(0,), arms=("random", "head"))
    rows = {row["name"]: row for row in plan_pruning(planned)}
    assert rows["head-seed0"]["score_flops"] > 0 == rows["random-seed0"]["score_flops"]
    assert rows["random-seed0"]["train_flops"] < rows["head-seed0"]["train_flops"]  # heads alone cannot shrink as far
    results = [_cell("teacher", seed, plain=0.9) for seed in (0, 1)]
    results += [_cell("block", seed, kd=0.8 + 0.1 * seed, plain=0.45) for seed in (0, 1)]
    assert write_pruning_study("pruning", study, results, tmp_path)["best"] == "block kd"
    table = json.loads((tmp_path / "table.json").read_text())
    [group] = [g for g in table["summary"] if g["arm"] == "block" and g["training"] == "kd"]
    assert group["all"]["mean"] == pytest.approx(0.85) and group["share"]["mean"] == pytest.approx(0.85 / 0.9)
    assert "94.4% ± 7.9%" in (tmp_path / "report.html").read_text()


def _cell(arm: str, seed: int, **right: float) -> dict:
    sizes = {"blocks": 2, "heads": 2, "cross_heads": 2, "ffn": 64}
    judged = {
        name: {"parameters": 10, "sizes": sizes, "eval_loss": 0.2}
        | {"accuracy": {"colour": 1.0, "shape": 1.0, "motion": value, "all": value}}
        for name, value in right.items()
    }
    return {"arm": arm, "seed": seed, "trained": judged}
