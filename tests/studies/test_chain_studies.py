"""The studies of pruning and of step distillation from nothing to their tables, two steps a stage."""

import dataclasses
import json
import math
from typing import Any, get_args

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.lineage import read_pruned
from mobile_video_jax.studies.cells import RESULT
from mobile_video_jax.studies.distillation import run_distillation_study
from mobile_video_jax.studies.distillation_report import write_distillation_study
from mobile_video_jax.studies.pruning import run_pruning_study
from mobile_video_jax.studies.pruning_report import write_pruning_study
from mobile_video_jax.studies.shrinking_config import DistillationArm, DistillationStudy, PruningStudy

SHORT = {"steps": 2, "eval_every": 2, "checkpoint_every": 2}


def shortened(config: Any, *parts: str) -> Any:
    """The study with two steps of 8 clips a stage, one seed, and 4 samples of 2 steps a model."""
    changes = {part: dataclasses.replace(getattr(config, part), **SHORT, batch_size=8) for part in parts}
    sampling = dataclasses.replace(config.sampling, steps=2)
    prune = dataclasses.replace(config.prune, clips=8, batch_clips=8, times=1)
    counts = {"train_clips": 32, "validation_clips": 16, "test_clips": 8, "samples": 4, "seeds": (0,)}
    return dataclasses.replace(config, **changes, **counts, sampling=sampling, prune=prune)


@pytest.mark.slow
def test_distillation_judges_baselines_and_arms_at_each_number_of_steps(tmp_path):
    study = from_mapping(DistillationStudy, studies.get_config("distillation").to_dict())
    study = shortened(study, "vae", "dit", "recover", "distill")
    arms = get_args(DistillationArm)
    study = dataclasses.replace(study, arms=arms, warm_steps=2, head_steps=2, points=2, evaluated_steps=(1, 4))
    results = run_distillation_study(study, tmp_path)
    assert len(results) == 4 + len(arms)
    by_arm = {result["arm"]: result["steps"] for result in results}
    heads = {result["arm"]: result["head"] for result in results if "head" in result}
    assert set(heads) == {"conv", "dit", "mismatched", "taps", "renoise-dit", "dmd2"}
    for head in heads.values():
        assert head.keys() >= {"auc@0.1", "caption@0.7"} and all(0 <= value <= 1 for value in head.values())
    assert all(set(by_arm[arm]) == {"1", "4"} for arm in arms) and set(by_arm["teacher"]) == {"2"}
    [curve] = [result["curve"] for result in results if result["arm"] == "dit"]
    assert [point["step"] for point in curve] == [1, 2] and len(curve[0]["hits"]) == study.samples
    assert by_arm["teacher"]["2"]["evaluations"] == 4 and by_arm["student-4"]["4"]["evaluations"] == 4
    judged = [values for steps in by_arm.values() for values in steps.values()]
    assert all(math.isfinite(values[key]) for values in judged for key in ("distance", "motion", "diversity"))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"cells/*/{RESULT}")}
    assert run_distillation_study(study, tmp_path) == results
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert write_distillation_study("distillation", study, results, tmp_path)["finished"] == 4 + len(arms)
    assert len(json.loads((tmp_path / "table.json").read_text())["summary"]) == 4 + 2 * len(arms)


@pytest.mark.slow
def test_pruning_measures_each_way_on_its_way_back_from_one_teacher(tmp_path):
    study = from_mapping(PruningStudy, studies.get_config("pruning").to_dict())
    arms = ("tri-level", "random", "repair-first", "iterative")
    study = dataclasses.replace(
        shortened(study, "vae", "dit", "recover"), arms=arms, blocks_kept=(1 / 3,), repeats=1, draws=2, points=2
    )
    results = run_pruning_study(study, tmp_path)
    assert [result["arm"] for result in results] == ["teacher", *arms, "random"]
    teacher, *others = results
    assert teacher["steps"] == 2 and 0 <= teacher["right"] <= 1
    for result in others:
        assert [point["step"] for point in result["curve"]] == [0, 2, 4], result["arm"]
        assert result["parameters"] < 0.5 * teacher["parameters"]
    maps = [read_pruned(Run.open(path))["block_map"] for path in sorted(tmp_path.glob("cells/random*/pruned"))]
    assert maps[0] != maps[1]
    [again] = [Run.open(path) for path in tmp_path.glob("cells/iterative*/recovered1")]
    assert again.config["teacher"] == Run.open(next(tmp_path.glob("cells/iterative*/recovered0"))).config["teacher"]
    assert again.denoiser.describe()["parameters"] < results[0]["parameters"] / 2
    last = Run.open(next(tmp_path.glob("cells/repair-first*/recovered1")))
    assert last.config["block_map"] == read_pruned(Run.open(last.path.parent / "pruned"))["block_map"]
    assert write_pruning_study("pruning", study, results, tmp_path)["finished"] == 6
