"""The study of attention: its cells and layouts, equal budgets, what streams keep, its claims and table."""

import dataclasses
import json

import pytest

from configs import ablate as studies
from configs.studies.trainings import dit_training, vae_training
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.search.space import as_text
from mobile_video_jax.studies.attention import (
    budget,
    cells,
    converting,
    run_attention_study,
    step_flops,
    tuning,
    tuning_steps,
)
from mobile_video_jax.studies.attention_claims import beside_random, kept
from mobile_video_jax.studies.attention_layouts import KINDS, phone_costs, phone_milliseconds, repeated_layout
from mobile_video_jax.studies.attention_report import write_attention_study
from mobile_video_jax.studies.network_config import AttentionStudy
from tests.studies.test_chain_studies import SHORT

MODEL = DitConfig(width=16, depth=4, heads=2, head_dim=8, ffn=32, time_features=8, causal=True)


@pytest.fixture(scope="module")
def study() -> AttentionStudy:
    return from_mapping(AttentionStudy, studies.get_config("attention_quick").to_dict())


@pytest.fixture(scope="module")
def small(study) -> AttentionStudy:
    """The study on 48 tokens, with networks and trainings of a moment."""
    shapes = {"clip": "9x32x32", "compression": "t4_s8_c16", "batch_size": 8}
    vae = vae_training("micro_t4_s8_c16", **SHORT, batch_size=8)
    parts = {name: dataclasses.replace(getattr(study, name), **shapes, **SHORT) for name in ("dit", "convert", "tune")}
    parts = {name: dataclasses.replace(part, model=MODEL) for name, part in parts.items()}
    parts["tune"] = dataclasses.replace(parts["tune"], steps=12)
    search = dataclasses.replace(study.search, distill_steps=2, clips=8, batch_clips=8, times=1)
    phone = dit_training("tiny", model=dataclasses.replace(MODEL, depth=8))
    counts = {"train_clips": 32, "validation_clips": 16, "test_clips": 8, "samples": 8, "streamed": 4}
    sampling = dataclasses.replace(study.sampling, steps=2)
    return dataclasses.replace(study, vae=vae, **parts, search=search, phone=phone, **counts, sampling=sampling)


def result(arm: str, seed: int, right: float, loss: float, phone: float) -> dict:
    hits = [1] * round(50 * right) + [0] * round(50 * (1 - right))
    streams = {"drift": {"2": 0.1, "4": 0.2}, "drift_floor": {"mean": 0.0, "std": 0.1}, "kept": {"1": right, "2": 0.5}}
    quality = {"hits": hits, "distance": 0.3, "floor": {"mean": 0.0, "std": 0.1}, "motion": 1.0, **streams}
    trained = {"losses": [2 * loss, loss], "steps": 8, "parameters": 9, "phone_milliseconds": phone, "trained": True}
    return {"arm": arm, "seed": seed, "layout": "lcha/1 x 8", "train_seconds": 1.0, **quality, **trained}


def test_every_seed_has_decoded_clips_all_arms_and_each_random_layout_on_at_least_320_tokens(study):
    names = [name.removesuffix("-seed0") for name in cells(study)]
    assert names == ["decoded", *KINDS, "sandwich", "random-1", "random-2"]
    assert tuning(study, repeated_layout("full", 8)).clip == study.vae.clip == "17x32x32"
    assert as_text(repeated_layout("lcha-softmax", 8)) == "lcha/1 x 3, full/1, lcha/1 x 3, full/1"


def test_conversion_and_training_have_the_flops_of_full_attention(small):
    for arm in ("full", "chunked"):
        layout = repeated_layout(arm, 4)
        step = step_flops(tuning(small, layout))
        spent = tuning_steps(small, layout) * step
        spent += small.convert.steps * step_flops(converting(small, layout)) if arm != "full" else 0
        assert abs(spent - budget(small)) <= 2 * step  # steps come in fours
    longer = dataclasses.replace(small, convert=dataclasses.replace(small.convert, steps=10_000))
    with pytest.raises(UserError, match="10000 steps of conversion cost more than .* of training: lower convert.steps"):
        tuning_steps(longer, layout)


def test_a_layout_is_stretched_over_the_phones_network(small):
    small = dataclasses.replace(small, search=dataclasses.replace(small.search, kinds=("full",), resolutions=(1,)))
    table = phone_costs(small)
    full = repeated_layout("full", 4)
    assert phone_milliseconds(small, full) == pytest.approx(table.of(full).milliseconds, rel=1e-6)


def test_models_that_cannot_stream_are_refused(study):
    whole = dataclasses.replace(study.dit, model=dataclasses.replace(study.dit.transformer, causal=False))
    with pytest.raises(UserError, match="set dit.model.causal=True"):
        dataclasses.replace(study, dit=whole)


def test_the_sandwich_is_compared_with_random_layouts_and_all_with_full_attention(study, tmp_path):
    rows = [
        ("full", 0.8, 0.2, 9.0),
        ("sandwich", 0.8, 0.21, 4.5),
        ("random-1", 0.4, 0.3, 4.5),
        ("random-2", 0.0, 0.4, 4.5),
    ]
    results = [result(*row[:1], 0, *row[1:]) for row in rows]
    sandwich, random, _ = kept(results)
    assert (sandwich.ratio, sandwich.phone, sandwich.verdict) == (1.0, 0.5, "yes")
    assert random.ratio == 0.5 and random.verdict == "no"
    [first, _] = beside_random(results)
    assert first.right.startswith("+40.0 (") and first.losses == (pytest.approx(-0.09),)
    assert write_attention_study("attention", study, results, tmp_path)["finished"] == 4
    table = json.loads((tmp_path / "table.json").read_text())["summary"]
    assert table[1]["right"]["mean"] == 0.8 and table[1]["gain"]["mean"] == 0.21 and table[0]["kept_4"]["mean"] is None
    assert "sandwich by search" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_study_from_nothing_to_its_table(study, small, tmp_path):
    with pytest.raises(UserError, match="no layout is within"):  # a call of the small network is all overhead
        run_attention_study(small, tmp_path)
    assert not any(tmp_path.iterdir())
    small = dataclasses.replace(small, phone=study.phone)
    results = run_attention_study(small, tmp_path)
    assert len(results) == len(cells(small)) == 9
    assert all(set(each["kept"]) == {"1", "2", "4"} for each in results if each["arm"] != "decoded")
    written = write_attention_study("attention", small, results, tmp_path)
    assert written["finished"] == 9 and (tmp_path / "quality.png").exists()
    assert run_attention_study(small, tmp_path) == results
