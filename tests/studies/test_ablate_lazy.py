"""The study of lazy sampling steps: its cells, its costs, its table."""

import dataclasses
import json

import numpy as np
import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.studies.lazy import cells, fewer_steps, root_mean_squares, run_lazy_study
from mobile_video_jax.studies.lazy_report import differences, write_lazy_study
from mobile_video_jax.studies.shrinking_config import LazyStudy


@pytest.fixture(scope="module")
def study() -> LazyStudy:
    return from_mapping(LazyStudy, studies.get_config("lazy_quick").to_dict())


def test_every_lazy_cell_has_one_of_fewer_steps_and_at_least_its_flops(study):
    grid = cells(study)
    assert len(grid) == 3 * (7 + 6 + 2 + 2 + 4)
    for arm, seed, steps, target in grid.values():
        if arm in ("reuse", "lazy", "chance"):
            fewer = fewer_steps(steps, target)
            assert fewer >= steps * (1 - target) - 1e-9 and f"fewer-{fewer}-seed{seed}" in grid


def test_a_saving_that_no_table_has_is_refused_before_anything_is_trained(study, tmp_path):
    with pytest.raises(UserError, match="student_target=0.2 is out of reach"):
        run_lazy_study(dataclasses.replace(study, student_target=0.2), tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_report_compares_the_same_prompts_at_equal_flops(study, tmp_path):
    def result(arm: str, seed: int, steps: int, target: float, right: float, distance: float) -> dict:
        measured = {"right": [right] * 40, "distance": [distance] * 40, "passes": 28.0, "phone_seconds": 0.01}
        return {"arm": arm, "seed": seed, "steps": steps, "target": target, **measured}

    results = [
        result(arm, seed, steps, target, right, distance)
        for seed in (0, 1)
        for arm, steps, target, right, distance in (
            ("fewer", 14, 0.0, 0.5, 4.0),
            ("reuse", 20, 0.3, 1.0, 2.0),
            ("lazy", 20, 0.3, 1.0, 3.0),
            ("chance", 20, 0.3, 0.0, 5.0),
            ("none", 4, 0.0, 1.0, 9.0),
            ("random", 4, 0.2, 0.0, 9.5),
        )
    ]
    *reuse, lazy, chance, random = differences(results)
    assert [each.distance.value for each in reuse] == [-2.0, -3.0, -1.0]  # fewer steps, chance, gates
    assert (lazy.right.value, lazy.distance.value, lazy.right.n) == (0.5, -1.0, 80)
    assert (chance.right.value, chance.distance.value) == (1.0, -2.0)
    assert (random.right.value, random.distance.value) == (-1.0, 0.5)
    assert write_lazy_study("lazy", study, results, tmp_path)["finished"] == 12
    assert json.loads((tmp_path / "table.json").read_text())["summary"][1]["right"]["mean"] == 1.0
    assert "reuse by sensitivity, 20 steps, 30% saved, less 14 steps" in (tmp_path / "report.html").read_text()


def test_the_distance_is_in_grey_levels():
    clips = np.full((2, 3, 4, 4, 3), 250, np.uint8)
    np.testing.assert_allclose(
        root_mean_squares(clips, clips - np.array([0, 6], np.uint8)[:, None, None, None, None]), [0, 6]
    )
