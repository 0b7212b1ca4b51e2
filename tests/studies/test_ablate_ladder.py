"""The study of SnapGen++'s ladder: its cells, its control, and its table."""

import dataclasses
import json

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.studies.ladder import cells, plan_ladder, run_ladder_study
from mobile_video_jax.studies.ladder_report import write_ladder_study
from mobile_video_jax.studies.network_config import LadderStudy
from tests.studies.test_chain_studies import SHORT


@pytest.fixture(scope="module")
def study() -> LadderStudy:
    return from_mapping(LadderStudy, studies.get_config("ladder").to_dict())


def result(arm: str, seed: int, loss: float) -> dict:
    counted = {"blocks": 8, "parameters": 10, "step_flops": 5, "phone_parameters": 100, "phone_milliseconds": 2.0}
    measured = {"loss": loss + 0.1 * seed, "last_quarter": 0.01, "right": 0.5, "hits": [0, 1]}
    return {"arm": arm, "seed": seed, **counted, **measured}


def test_every_seed_has_the_base_and_each_step(study):
    assert list(cells(study))[:5] == ["base-seed0", "stages-seed0", "assa-seed0", "enhanced-seed0", "shallow-seed0"]
    assert len(cells(study)) == 15


def test_steps_are_cheaper_and_the_control_costs_what_the_last_does(study):
    costs = {row["name"]: row["train_flops"] for row in plan_ladder(dataclasses.replace(study, seeds=(0,)))}
    assert costs["base-seed0"] > costs["stages-seed0"] > costs["assa-seed0"]
    assert costs["shallow-seed0"] == pytest.approx(costs["enhanced-seed0"], rel=0.1)


def test_steps_are_compared_in_pairs_of_seeds(study, tmp_path):
    losses = {"base": 0.5, "stages": 0.4, "enhanced": 0.3, "shallow": 0.6}
    results = [result(arm, seed, loss) for seed in range(3) for arm, loss in losses.items()]
    assert write_ladder_study("ladder", study, results, tmp_path)["finished"] == 12
    page = (tmp_path / "report.html").read_text()
    assert "enhanced less shallow" in page and "-0.3000" in page
    assert len(json.loads((tmp_path / "table.json").read_text())["summary"]) == 4


def test_a_base_of_too_few_blocks_is_refused_before_anything_is_trained(study):
    model = dataclasses.replace(study.dit.transformer, depth=3)
    with pytest.raises(UserError, match="at least 4 equal blocks"):
        dataclasses.replace(study, dit=dataclasses.replace(study.dit, model=model))


@pytest.mark.slow
def test_the_study_from_nothing_to_its_table(study, tmp_path):
    parts = {part: dataclasses.replace(getattr(study, part), **SHORT, batch_size=8) for part in ("vae", "dit")}
    sampling = dataclasses.replace(study.sampling, steps=2)
    counts = {"train_clips": 32, "validation_clips": 16, "test_clips": 8, "samples": 4, "seeds": (0,)}
    study = dataclasses.replace(study, **parts, **counts, sampling=sampling)
    results = run_ladder_study(study, tmp_path)
    assert [each["arm"] for each in results] == ["base", "stages", "assa", "enhanced", "shallow"]
    assert write_ladder_study("ladder", study, results, tmp_path)["finished"] == 5
