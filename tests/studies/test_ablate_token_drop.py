"""The study of training on some of the tokens: equal FLOPs, two phases, and its table."""

import dataclasses
import json

import pytest

from configs import ablate as studies
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.studies.network_config import TokenDropStudy
from mobile_video_jax.studies.token_drop import SHARES, cells, plan_token_drop, run_token_drop_study, trainings
from mobile_video_jax.studies.token_drop_report import write_token_drop_study
from tests.studies.test_chain_studies import SHORT


@pytest.fixture(scope="module")
def study() -> TokenDropStudy:
    return from_mapping(TokenDropStudy, studies.get_config("token_drop").to_dict())


def test_arms_have_their_share_of_the_plain_flops(study):
    costs = {row["name"]: row["train_flops"] for row in plan_token_drop(dataclasses.replace(study, seeds=(0,)))}
    for arm, share in SHARES.items():
        assert costs[f"{arm}-seed0"] == pytest.approx(share * costs["plain-seed0"], rel=0.01)
    assert len(cells(study)) == 18


def test_dropping_takes_more_steps_and_ends_on_all_tokens(study):
    some, whole = trainings(study, study.dit, "fusion")
    assert (some.token_drop, whole.token_drop) == (0.75, 0.0)
    assert some.steps + whole.steps > 1.3 * study.dit.steps
    assert some.optimizer.schedule == "constant" != whole.optimizer.schedule
    assert some.model.skips == whole.model.skips == ((1, 10),)


def test_the_table_has_samples_guided_by_the_path_where_a_network_knows_it(study, tmp_path):
    results = [
        {"arm": arm, "seed": seed, "parameters": 10, "steps": 4, "train_flops": 9, "last_quarter": 0.01}
        | {"loss": 0.4 + 0.1 * seed, "right": 0.5, "hits": [0, 1], "right_by_path": by_path}
        for seed in range(2)
        for arm, by_path in (("plain", None), ("fusion", 0.25))
    ]
    assert write_token_drop_study("token_drop", study, results, tmp_path)["finished"] == 4
    summary = json.loads((tmp_path / "table.json").read_text())["summary"]
    assert [row["right_by_path"] for row in summary][1]["mean"] == 0.25
    assert "fusion less plain" in (tmp_path / "report.html").read_text()


def test_a_network_without_a_middle_is_refused(study):
    model = dataclasses.replace(study.dit.transformer, depth=4)
    with pytest.raises(UserError, match="token_drop needs more than 4 blocks"):
        dataclasses.replace(study, dit=dataclasses.replace(study.dit, model=model))


@pytest.mark.slow
def test_the_study_from_nothing_to_its_table(study, tmp_path):
    parts = {part: dataclasses.replace(getattr(study, part), **SHORT, batch_size=8) for part in ("vae", "dit")}
    sampling = dataclasses.replace(study.sampling, steps=2)
    counts = {"train_clips": 32, "validation_clips": 16, "test_clips": 8, "samples": 4, "seeds": (0,)}
    study = dataclasses.replace(study, **parts, **counts, sampling=sampling, arms=("plain-half", "fusion"))
    results = run_token_drop_study(study, tmp_path)
    assert [each["arm"] for each in results] == ["plain", "plain-half", "fusion"]
    assert write_token_drop_study("token_drop", study, results, tmp_path)["finished"] == 3
