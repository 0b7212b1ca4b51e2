"""The study of elastic networks: its cells, what they cost, and its table."""

import dataclasses
import json

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.studies.elastic import cells, plan_elastic, run_elastic_study
from mobile_video_jax.studies.elastic_report import differences, write_elastic_study
from mobile_video_jax.studies.network_config import ElasticStudy
from tests.studies.test_chain_studies import SHORT


@pytest.fixture(scope="module")
def study() -> ElasticStudy:
    return from_mapping(ElasticStudy, studies.get_config("elastic").to_dict())


def result(arm: str, seed: int, **losses: float) -> dict:
    widths = {name[1:]: {"parameters": 10, "loss": loss + 0.1 * seed, "right": 0.5} for name, loss in losses.items()}
    return {"arm": arm, "seed": seed, "widths": widths, "commit": "c", "hardware": "h"}


def test_every_seed_has_the_whole_network_the_widths_alone_and_an_elastic_one_of_each_arm(study):
    names = list(cells(study))
    assert names[:3] == ["teacher-seed0", "alone-seed0", "none-seed0"] and len(names) == 3 * 5
    assert study.elastic.steps == study.dit.steps and study.elastic.batch_size == study.dit.batch_size


@pytest.mark.slow
def test_an_elastic_training_costs_what_the_whole_and_one_of_its_widths_cost_alone(study):
    costs = {row["name"]: row["train_flops"] for row in plan_elastic(dataclasses.replace(study, seeds=(0,)))}
    both = costs["teacher-seed0"] + costs["alone-seed0"] / len(study.elastic.widths)
    assert costs["global-seed0"] == pytest.approx(both, rel=0.01)


def test_widths_are_compared_with_the_same_width_alone_in_pairs_of_seeds(study, tmp_path):
    results = [
        each
        for seed in range(3)
        for each in (
            result("teacher", seed, w1000=0.2),
            result("alone", seed, w500=0.3),
            result("global", seed, w1000=0.21, w500=0.27),
        )
    ]
    written = write_elastic_study("elastic", study, results, tmp_path)
    table = json.loads((tmp_path / "table.json").read_text())
    assert written["finished"] == 9 and len(table["summary"]) == 4
    pairs = {(pair["arm"], pair["width"]): pair["mean"] for pair in differences(table["rows"])}
    assert pairs == {("global", "1000"): pytest.approx(0.01), ("global", "500"): pytest.approx(-0.03)}


@pytest.mark.slow
def test_the_study_from_nothing_to_its_table(study, tmp_path):
    parts = {
        part: dataclasses.replace(getattr(study, part), **SHORT, batch_size=8) for part in ("vae", "dit", "elastic")
    }
    sampling = dataclasses.replace(study.sampling, steps=2)
    counts = {"train_clips": 32, "validation_clips": 16, "test_clips": 8, "samples": 4, "seeds": (0,)}
    study = dataclasses.replace(study, **parts, **counts, sampling=sampling)
    results = run_elastic_study(study, tmp_path)
    assert [set(each["widths"]) for each in results] == [{"1000"}, {"500", "750"}, *({"1000", "500", "750"},) * 3]
    assert write_elastic_study("elastic", study, results, tmp_path)["finished"] == 5
