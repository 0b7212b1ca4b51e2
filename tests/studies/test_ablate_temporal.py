"""The study of layers over time: its cells, what an arm trains, and its table."""

import dataclasses
import json

import numpy as np
import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.search.random_layouts import Sampler
from mobile_video_jax.search.space import Choice, Space
from mobile_video_jax.studies.network_config import TemporalStudy
from mobile_video_jax.studies.temporal import arm_config, cells, hand_made, run_temporal_study
from mobile_video_jax.studies.temporal_report import differences, write_temporal_study
from tests.search.tables import random_table
from tests.studies.test_chain_studies import SHORT


@pytest.fixture(scope="module")
def study() -> TemporalStudy:
    return from_mapping(TemporalStudy, studies.get_config("temporal").to_dict())


def result(arm: str, seed: int, loss: float) -> dict:
    searching = {"rank_correlation": {"0": 0.5}, "evaluations": 9, "seconds": 1.0} if arm == "search" else {}
    measured = {"parameters": 10, "layers": "none conv1d", "milliseconds": 1.0, "loss": loss + 0.1 * seed}
    return {"arm": arm, "seed": seed, "right": 0.5, "hits": [0, 1], **measured, **searching}


def test_layers_over_time_are_trained_alone_and_without_any_the_network_is(study):
    assert list(cells(study))[:2] == ["none-seed0", "conv1d-seed0"] and len(cells(study)) == 3 * 7
    none, conv = (arm_config(study, [kind] * 7) for kind in ("none", "conv1d"))
    assert conv.temporal_only and not none.temporal_only and none.steps == conv.steps
    assert dataclasses.replace(conv.model, temporal=()) == study.dit.model


def test_kinds_that_are_not_searched_are_no_arms(study):
    with pytest.raises(UserError, match="conv3d must be in search.temporal too"):
        dataclasses.replace(
            study, search=dataclasses.replace(study.search, temporal=("conv1d", "attention1d", "attention3d"))
        )


def test_layers_of_one_kind_fill_the_budget_from_the_lowest_resolution_on():
    space = Space(tuple((Choice("none", level), Choice("conv1d", level)) for level in (1, 2, 2, 1)))
    table = random_table(np.random.default_rng(0), space)
    costs = {choice: cost._replace(milliseconds=float(choice.kind != "none")) for choice, cost in table.choices.items()}
    table = dataclasses.replace(table, choices=costs)
    moves = {pair: cost._replace(milliseconds=0.0) for pair, cost in table.moves.items()}
    table = dataclasses.replace(table, moves=moves)
    sampler = Sampler(space, table, {"milliseconds": table.rest.milliseconds + 3})
    assert [choice.kind for choice in hand_made(sampler, "conv1d")] == ["conv1d", "conv1d", "conv1d", "none"]


def test_the_search_is_compared_with_each_arm_in_pairs_of_seeds(study, tmp_path):
    results = [
        each
        for seed in range(3)
        for each in (result("none", seed, 0.3), result("random", seed, 0.21), result("search", seed, 0.2))
    ]
    assert write_temporal_study("temporal", study, results, tmp_path)["finished"] == 9
    table = json.loads((tmp_path / "table.json").read_text())
    pairs = {pair["other"]: pair["mean"] for pair in differences(table["rows"])}
    assert pairs == {"none": pytest.approx(-0.1), "random": pytest.approx(-0.01)}
    assert "0.50 after 0 steps" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_study_from_nothing_to_its_table(study, tmp_path):
    evolution = dataclasses.replace(study.search.evolution, population=3, generations=2, fidelities=(0, 1))
    small = {"distill_steps": 2, "clips": 8, "times": 1, "batch_clips": 4, "floor": 1, "evolution": evolution}
    parts = {part: dataclasses.replace(getattr(study, part), **SHORT, batch_size=8) for part in ("vae", "dit", "video")}
    counts = {"train_clips": 32, "validation_clips": 16, "test_clips": 8, "samples": 4, "seeds": (0,)}
    study = dataclasses.replace(
        study,
        **parts,
        **counts,
        arms=("none", "conv1d", "random", "search"),
        sampling=dataclasses.replace(study.sampling, steps=2),
        search=dataclasses.replace(study.search, **small),
    )
    results = run_temporal_study(study, tmp_path)
    assert [each["arm"] for each in results] == ["none", "conv1d", "random", "search"]
    assert write_temporal_study("temporal", study, results, tmp_path)["finished"] == 4
