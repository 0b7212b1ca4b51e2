"""The study of SnapGen's distillation: its cells, what an arm changes, its claims and table."""

import dataclasses
import json
from pathlib import Path

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.studies.architectures import ARMS, cells, plan_architectures, student_config
from mobile_video_jax.studies.architectures_report import CLAIMS, write_architecture_study
from mobile_video_jax.studies.shrinking_config import ArchitectureStudy
from mobile_video_jax.studies.trained import differences


@pytest.fixture(scope="module")
def study() -> ArchitectureStudy:
    return from_mapping(ArchitectureStudy, studies.get_config("snapgen").to_dict())


def result(arm: str, seed: int, loss: float) -> dict:
    measured = {"steps": 8, "parameters": 10, "loss": loss, "last_quarter": 0.01, "right": 0.5, "hits": [0, 1]}
    return {"arm": arm, "seed": seed, **measured, "commit": "c", "hardware": "h"}


RESULTS = [result(arm, seed, 0.5 - 0.1 * i + 0.01 * seed) for seed in range(3) for i, arm in enumerate(ARMS)]


def test_every_seed_has_its_teacher_and_a_student_of_each_arm(study):
    names = list(cells(study))
    assert len(names) == 3 * (1 + 6) and names[:2] == ["teacher-seed0", "task-seed0"]
    config = student_config(study, "scaling", 1, Path("out"))
    assert config.balance == "timestep" and config.kd.velocity and not config.kd.features
    assert config.teacher == "out/teachers/seed1" and config.seed == 1


@pytest.mark.slow
def test_a_student_without_a_teacher_costs_least(study):
    short = dataclasses.replace(study, seeds=(0,), arms=("task", "longer", "output"))
    costs = {row["name"]: row["train_flops"] for row in plan_architectures(short)}
    assert 0 < costs["task-seed0"] < costs["output-seed0"] == pytest.approx(costs["longer-seed0"], rel=0.02)


def test_claims_are_differences_in_pairs_of_seeds(study, tmp_path):
    pairs = {(pair["first"], pair["second"]): pair for pair in differences(RESULTS, CLAIMS)}
    assert pairs["output", "longer"]["mean"] == pytest.approx(-0.1) and pairs["scaling", "output"]["high"] < 0
    written = write_architecture_study("snapgen", study, RESULTS, tmp_path)
    assert written["finished"] == 18 and "features less scaling" in (tmp_path / "report.html").read_text()
    assert len(json.loads((tmp_path / "table.json").read_text())["summary"]) == 6
