"""The studies of rewards and of counting from nothing to their tables, two steps a stage."""

import dataclasses
import json
import math
from typing import Any

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.studies.counting import plan_counting, run_counting_study
from mobile_video_jax.studies.counting_report import table_rows, write_counting_study
from mobile_video_jax.studies.reward import arm_config, run_reward_study
from mobile_video_jax.studies.reward_config import CountingStudy, RewardStudy
from mobile_video_jax.studies.reward_report import gains, write_reward_study

SHORT = {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "batch_size": 8}


def shortened(study: Any, *parts: str) -> Any:
    changes = {part: dataclasses.replace(getattr(study, part), **SHORT) for part in parts}
    counts = {"train_clips": 16, "validation_clips": 8, "test_clips": 8, "samples": 4, "seeds": (0,)}
    return dataclasses.replace(study, **changes, **counts, sampling=dataclasses.replace(study.sampling, steps=2))


def test_arms_change_the_reward_alone(tmp_path):
    study = from_mapping(RewardStudy, studies.get_config("reward").to_dict())
    late, critic = (arm_config(study, arm, 1, tmp_path) for arm in ("latent-late", "critic-4"))
    assert (late.reward.low, late.reward.high) == (0.0, 0.3) and late.reward.run.endswith("rewards/seed1")
    assert critic.reward.grad_steps == 4 and critic.reward.run == str(tmp_path / "critic")
    assert dataclasses.replace(late, reward=critic.reward) == critic


HITS = {"base": [1, 0, 0, 0], "flow": [1, 1, 0, 0], "latent": [1, 1, 1, 0]}


def test_gains_are_over_the_same_seeds_base():
    results = [{"arm": arm, "seed": seed, "hits": hits} for arm, hits in HITS.items() for seed in (0, 1, 2)]
    assert gains(results) == [
        ["flow", "+25.0 (+25.0 to +25.0)", ""],
        ["latent", "+50.0 (+50.0 to +50.0)", "+25.0 (+25.0 to +25.0)"],
    ]


def test_gains_of_one_seed_have_intervals_over_prompts():
    [_, [arm, gain, _]] = gains([{"arm": arm, "seed": 0, "hits": hits} for arm, hits in HITS.items()])
    assert arm == "latent" and gain == "+50.0 (-41.9 to +141.9)"


def test_guides_are_measured_where_plain_sampling_is_wrong():
    shared = {"seed": 0, "distance": 0.1, "motion": 1.0, "evaluations": 40.0, "seconds_per_clip": 0.1}
    plain = {"arm": "plain", "asked": [1, 2, 3, 3], "right": [1, 1, 0, 0], "count": 0.5, **shared}
    guided = {"arm": "count", "asked": [1, 2, 3, 3], "right": [1, 0, 1, 0], "count": 0.5, **shared}
    row = table_rows([plain, guided])[1]
    assert (row["wrong_half"], row["spoilt"], row["count_3"]) == (0.5, 0.5, 0.5)


@pytest.mark.slow
def test_rewards_are_measured_beside_the_hidden_detector(tmp_path):
    study = from_mapping(RewardStudy, studies.get_config("reward_quick").to_dict())
    study = shortened(study, "vae", "dit", "reward", "critic", "tuning")
    study = dataclasses.replace(
        study,
        arms=("latent", "critic-1"),
        labelled=8,
        points=1,
        curve_samples=4,
        rollout=dataclasses.replace(study.rollout, steps=2),
        tuning=dataclasses.replace(study.tuning, reward=dataclasses.replace(study.tuning.reward, steps=2)),
    )
    results = run_reward_study(study, tmp_path)
    assert [result["arm"] for result in results] == ["decoded", "base", "flow", "latent", "critic-1"]
    for result in results[3:]:
        [point] = result["curve"]
        assert 0 <= point["hidden"] <= 1 and 0 < point["reward"] < 1 and math.isfinite(result["distance"])
    assert run_reward_study(study, tmp_path) == results
    assert write_reward_study("reward", study, results, tmp_path)["finished"] == 5
    assert (tmp_path / "curves.png").exists() and (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_counting_compares_guides_with_plain_sampling(tmp_path):
    study = from_mapping(CountingStudy, studies.get_config("counting_quick").to_dict())
    planned = {row["name"]: row for row in plan_counting(study)}
    assert planned["plain-seed0"]["sample_flops"] > 0 == planned["decoded-seed0"]["sample_flops"]
    assert planned["count_best-seed0"]["sample_flops"] == 2 * planned["plain-seed0"]["sample_flops"]
    assert min(planned[name]["train_flops"] for name in ("vae", "critic", "teacher-seed0")) > 0
    study = shortened(study, "vae", "dit", "critic")
    results = run_counting_study(study, tmp_path)
    assert [result["arm"] for result in results] == [
        "decoded",
        "plain",
        "again",
        "count",
        "count_attention",
        "count_best",
    ]
    assert results[5]["evaluations"] == 2 * results[1]["evaluations"] == 8
    assert write_counting_study("counting", study, results, tmp_path)["finished"] == 6
    assert len(json.loads((tmp_path / "table.json").read_text())["summary"]) == 6
