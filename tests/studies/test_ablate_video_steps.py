"""The study of a video U-Net's few steps: its cells, what an arm changes, its table."""

import dataclasses
import json
import math

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.studies.network_config import VideoStepsStudy
from mobile_video_jax.studies.video_steps import arm_config, cells, plan_video_steps, run_video_steps_study
from mobile_video_jax.studies.video_steps_report import differences, write_video_steps_study
from tests.studies.test_chain_studies import SHORT


@pytest.fixture(scope="module")
def study() -> VideoStepsStudy:
    return from_mapping(VideoStepsStudy, studies.get_config("video_steps").to_dict())


def result(arm: str, seed: int, hits: list[int], distance: float) -> dict:
    measured = {"steps": 8, "parameters": 10, "motion": 1.0, "loss": 0.2, "image_loss": 0.3, "last_quarter": 0.01}
    judged = {"hits": hits, "image_hits": hits, "distance": distance, "floor": {"mean": 0.0, "std": 0.1}}
    return {"arm": arm, "seed": seed, **measured, **judged}


def test_flow_matching_alone_has_the_same_batches_and_no_discriminator(study):
    names = list(cells(study))
    assert names[:3] == ["guided-seed0", "untouched-seed0", "flow-seed0"] and len(names) == 3 * (2 + 4)
    flow, clips, mixed = (arm_config(study, arm) for arm in ("flow", "clips", "mixed"))
    assert flow.objective.flow == mixed.objective.flow == 1 and mixed.objective.method == "adversarial"
    assert flow.objective.method == "kd" and not flow.objective.kd and not flow.objective.asks_teacher
    assert flow.image_share == mixed.image_share == 0.5 and clips.image_share == 0
    assert flow.steps == mixed.steps == study.tune.steps


def test_shares_of_images_have_to_be_known(study):
    with pytest.raises(UserError, match="set video.image_share"):
        dataclasses.replace(study, video=dataclasses.replace(study.video, image_share=-1.0))


def test_arms_are_compared_in_pairs_of_seeds(study, tmp_path):
    hits = {"guided": [1] * 20, "untouched": [0] * 20, "flow": [1] * 10 + [0] * 10, "mixed": [1] * 15 + [0] * 5}
    results = [
        result(arm, seed, own, 0.1 * i + 0.01 * seed) for seed in range(3) for i, (arm, own) in enumerate(hits.items())
    ]
    assert write_video_steps_study("video_steps", study, results, tmp_path)["finished"] == 12
    table = json.loads((tmp_path / "table.json").read_text())
    trained = {group["arm"]: group["trained"] for group in table["summary"]}
    assert trained == {"guided": True, "untouched": False, "flow": True, "mixed": True}
    pairs = {(pair["first"], pair["second"]): pair for pair in differences(results)}
    assert pairs["mixed", "flow"]["distance"].value == pytest.approx(0.1) and ("mixed", "clips") not in pairs
    page = (tmp_path / "report.html").read_text()
    assert "not trained" in page and "mixed less flow" in page and "+25.0" in page


@pytest.mark.slow
def test_the_study_from_nothing_to_its_table(study, tmp_path):
    parts = {part: dataclasses.replace(getattr(study, part), **SHORT, batch_size=8) for part in ("vae", "dit", "video")}
    counts = {"train_clips": 32, "validation_clips": 16, "test_clips": 8, "samples": 4, "seeds": (0,)}
    tune, sampling = (
        dataclasses.replace(study.tune, steps=2, batch_size=8),
        dataclasses.replace(study.sampling, steps=2),
    )
    study = dataclasses.replace(study, **parts, **counts, tune=tune, sampling=sampling)
    flops = {row["name"]: row["train_flops"] for row in plan_video_steps(study)}
    assert 0 == flops["untouched-seed0"] < flops["flow-seed0"] < flops["mixed-seed0"] < flops["clips-seed0"]
    assert flops["longer-seed0"] >= flops["mixed-seed0"] - flops["flow-seed0"]
    results = run_video_steps_study(study, tmp_path)
    assert [each["arm"] for each in results] == ["guided", "untouched", "flow", "longer", "clips", "mixed"]
    assert all(math.isfinite(each[key]) for each in results for key in ("distance", "motion", "loss", "image_loss"))
    assert results[0]["loss"] == results[1]["loss"] != results[2]["loss"]
    assert write_video_steps_study("video_steps", study, results, tmp_path)["finished"] == 6
