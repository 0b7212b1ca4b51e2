"""The study of step distillation: its cells, its measures, its table."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.evaluate.backbone_features import backbone_features
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.studies.distillation import arm_config, cells, parts, plan_distillation
from mobile_video_jax.studies.distillation_claims import differences, retention
from mobile_video_jax.studies.distillation_report import table_rows, write_distillation_study
from mobile_video_jax.studies.sample_quality import real_distances
from mobile_video_jax.studies.shrinking_config import DistillationStudy
from tests import tiny


@pytest.fixture(scope="module")
def study() -> DistillationStudy:
    return from_mapping(DistillationStudy, studies.get_config("distillation").to_dict())


def judged(right: float, steps: int, *, guided: bool = False) -> dict:
    accuracy = {"colour": 1.0, "shape": right, "motion": 1.0, "all": right}
    measures = {"distance": 1 - right, "motion": 0.9, "diversity": 20.0, "seconds_per_clip": 0.1 * steps}
    measures |= {"hits": f"{'1' * round(100 * right):0<100}", "teacher_distance": None if guided else 0.1}
    return {"evaluations": steps * (1 + guided), "accuracy": accuracy, **measures}


def test_cells_are_baselines_and_arms_of_every_seed(study):
    names = list(cells(study))
    assert len(names) == 3 * (4 + 4) and names[0] == "teacher-seed0" and names[-1] == "dmd-seed2"
    with pytest.raises(UserError, match=r"arms\[0\]=gan: use kd or conv or dit or mismatched or taps"):
        from_mapping(DistillationStudy, plain(study) | {"arms": ["gan"]})


def test_the_table_has_a_row_for_each_number_of_steps_and_shares_of_the_seeds_teacher(study, tmp_path):
    results = []
    for seed, right in enumerate((1.0, 0.8)):
        results.append({"arm": "teacher", "seed": seed, "steps": {"20": judged(right, 20, guided=True)}})
        for arm, loss in (("dit", 0.0), ("conv", 0.1)):
            steps = {str(n): judged(right - loss - (n < 4) * 0.2, n) for n in (1, 4)}
            curve = [{"step": int(n), **steps[n]} for n in steps]
            results.append({"arm": arm, "seed": seed, "steps": steps, "curve": curve, "head": {"auc@0.1": 0.8 - loss}})
    assert len(table_rows(results[1])) == 2
    assert write_distillation_study("distillation", study, results, tmp_path)["best"] == "dit"
    groups = json.loads((tmp_path / "table.json").read_text())["summary"]
    at_four = {group["arm"]: group for group in groups if group["steps"] != 1}
    assert at_four["dit"]["share"]["mean"] == 1 and at_four["teacher"]["evaluations"] == 40
    assert at_four["conv"]["share"]["mean"] == pytest.approx((0.9 / 1.0 + 0.7 / 0.8) / 2)
    page = (tmp_path / "report.html").read_text()
    assert "adversarial, transformer head" in page and "0.800 ± 0.000" in page
    [pair] = differences([row for result in results for row in table_rows(result)], 4)
    assert (pair["first"], pair["second"]) == ("dit", "conv") and pair["all"]["n"] == 2
    assert [pair["all"][key] for key in ("value", "low", "high")] == pytest.approx([0.1] * 3)
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_a_student_keeps_95_percent_of_its_teacher_where_the_interval_over_prompts_says_so():
    teacher = {"arm": "teacher", "seed": 0, "steps": {"40": judged(1.0, 40, guided=True)}}
    students = [("dit", 1.0), ("conv", 0.7), ("kd", 0.95)]
    rows = [{"arm": arm, "seed": 0, "steps": {"4": judged(right, 4)}} for arm, right in students]
    verdicts = {x.arm: (x.ratio, x.verdict) for x in retention([teacher, *rows], steps=4)}
    assert verdicts == {"dit": (1.0, "yes"), "conv": (0.7, "no"), "kd": (0.95, "not decided")}
    assert retention(rows, steps=4) == []


def test_a_distillation_stops_for_each_point_of_its_curve_on_one_schedule(study):
    ends = parts(dataclasses.replace(study.distill, steps=10), 3)
    assert [part.steps for part in ends] == [3, 7, 10]
    assert {part.optimizer.schedule_steps for part in ends} == {10}


@pytest.mark.slow
def test_repeats_are_paired_and_arms_cost_the_same(study):
    repeated = dataclasses.replace(study, seeds=(0,), repeats=2, arms=("kd", "dit", "dmd2"))
    assert list(cells(repeated))[4:] == [f"{arm}-seed0-{i}" for i in (0, 1) for arm in ("kd", "dit", "dmd2")]
    assert arm_config(repeated, "dit").steps == study.distill.steps < arm_config(repeated, "kd").steps
    assert arm_config(repeated, "dmd2").optimizer.generator_every == 5
    planned = plan_distillation(dataclasses.replace(repeated, repeats=1, arms=("dit", "kdmd")))
    flops = {row["name"]: row["train_flops"] for row in planned}
    assert flops["kdmd-seed0"] == pytest.approx(flops["dit-seed0"], rel=0.05)
    assert flops["few-step-teacher-seed0"] == pytest.approx(flops["dit-seed0"], rel=0.05)
    floor = real_distances(np.random.default_rng(0).normal(size=(80, 4)))
    assert abs(floor["mean"]) < floor["std"] * 2


def test_features_are_of_each_clip_alone_and_tell_sets_apart(tmp_path):
    run = tiny.dit_run(tmp_path / "dit", tiny.dit_config(Path("nowhere")))
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (6, 9, 32, 32, 3), np.uint8)
    features = backbone_features(run, batch_size=4)
    projected = features(clips)
    assert projected.shape == (6, 192)
    np.testing.assert_allclose(features(clips[4:5]), projected[4:5], rtol=1e-4, atol=1e-5)
    dark = features(clips // 4)
    assert kernel_distance(projected, dark) > 10 * abs(kernel_distance(projected[:3], projected[3:]))
