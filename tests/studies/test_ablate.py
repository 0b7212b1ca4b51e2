"""The study: its grid, one real cell at the smallest size, and what is written about it."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from configs import ablate as studies
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.studies import budget, cells, compression_report
from mobile_video_jax.studies import compression as ablate
from mobile_video_jax.studies.cells import RESULT, claimed_cell
from mobile_video_jax.studies.compression import Cell
from mobile_video_jax.studies.compression_data import make_data, study_data
from mobile_video_jax.studies.compression_report import write_study
from mobile_video_jax.studies.compression_table import COSTS, KVD, QUALITY, best_group, summary, table_rows
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.kinds import KINDS
from mobile_video_jax.studies.learning import Learning, psnr_curve
from mobile_video_jax.studies.pareto import front
from mobile_video_jax.studies.study_class import study_class
from mobile_video_jax.train.divergence import TrainingDiverged
from mobile_video_jax.vae.decoder_flops import decoder_flops_per_frame
from tests import tiny
from tests.commands import run as command
from tests.object_store import new_folder
from tests.train.jobs import finish_job, start_job

pytestmark = pytest.mark.first


def study(**changes) -> StudyConfig:
    config = from_mapping(StudyConfig, studies.get_config("compression").to_dict())
    vae = tiny.vae_config(Path(), clip=config.vae.clip, loss=config.vae.loss, steps=3, eval_every=3, checkpoint_every=3)
    small = StudyConfig(
        compressions=("t4_s16_c4", "t8_s16_c4"),
        size="micro",
        vae=vae,
        objectives=("consistency",),
        dit=tiny.dit_config(Path(), steps=2, eval_every=2, checkpoint_every=2, text_tokens=16),
        server=config.server,
        mobile=config.mobile,
        world=World(counts=(1,)),
        train_clips=16,
        validation_clips=8,
        test_clips=8,
        samples=3,
        sampling=dataclasses.replace(config.sampling, steps=1),
    )
    return dataclasses.replace(small, **changes)


def test_a_grid_is_every_combination_and_refuses_what_cannot_be():
    grid = ablate.cells(study(seeds=(0, 1), objectives=("plain", "consistency")))
    assert len(grid) == 8 and Cell("t8_s16_c4", "consistency", 1) in grid.values()
    with pytest.raises(UserError, match=r"objectives\[0\]=best: use plain or consistency or consistency_mse or "):
        from_mapping(StudyConfig, plain(study()) | {"objectives": ["best"]})
    with pytest.raises(UserError, match="beyond this family"):
        ablate.cells(study(compressions=("t8_s64_c4",)))
    with pytest.raises(UserError, match="does not divide by the spatial stride"):
        ablate.cells(study(vae=dataclasses.replace(study().vae, clip="9x24x24"), compressions=("t4_s16_c4",)))
    with pytest.raises(UserError, match="height 40 does not divide by the spatial stride 16"):
        ablate.cells(study(judged_clip="9x40x32"))
    with pytest.raises(UserError, match="test_clips 7 are fewer than the 8 that a verdict needs"):
        ablate.cells(study(test_clips=7))
    with pytest.raises(UserError, match="finetune_steps 3 leave none of 3 steps"):
        ablate.cells(study(finetune_steps=3))
    with pytest.raises(UserError, match="'eq' changes the loss of a second phase: set finetune_steps"):
        ablate.cells(study(objectives=("plain", "eq")))
    assert ablate.cells(study(objectives=("plain", "eq"), finetune_steps=1))
    with pytest.raises(UserError, match="worker 2 of 2"):
        ablate.run_study(study(), Path("nowhere"), worker=2, workers=2)


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in studies.STUDIES if name.endswith("gpu")]


@pytest.mark.parametrize("name", [name for name in studies.STUDIES if not name.endswith("gpu")] + LARGE)
def test_every_study_of_the_config_file_is_legal(name):
    values = studies.get_config(name).to_dict()
    assert KINDS[values["kind"]].cells(from_mapping(study_class(values), values))


def test_the_adversarial_arm_begins_with_a_discriminator_that_learns_alone():
    phase = dataclasses.replace(study().vae, steps=40)
    first, second = (ablate.with_terms(phase, terms) for terms in ablate.OBJECTIVES["adversarial"])
    assert first == phase and second.loss.adversarial > 0 and second.adversarial_start == 4


def test_a_cell_is_compared_with_the_first_objective_of_its_compression():
    names = [(compression, objective) for compression in ("t4_s8_c16", "t4_s16_c32") for objective in ("plain", "eq")]
    results = [result(*name, psnr=20.0 + i, loss=0.4) for i, name in enumerate(names)]
    (table,) = compression_report._differences(results)
    pairs = [(row[0], row[1], row[2]) for row in table.rows]
    assert pairs == [
        ("t4_s8_c16-eq-seed0", "t4_s8_c16-plain-seed0", "+1.00"),
        ("t4_s16_c32-plain-seed0", "t4_s8_c16-plain-seed0", "+2.00"),
        ("t4_s16_c32-eq-seed0", "t4_s16_c32-plain-seed0", "+1.00"),
    ]


def test_a_study_is_planned_and_an_unknown_one_refused():
    rows = ablate.plan(study())
    assert len(rows) == 2 and all(row["vae_flops"] > 0 and row["dit_flops"] > 0 for row in rows)
    with pytest.raises(UserError, match="study 'everything' is unknown"):
        studies.get_config("everything")


@pytest.mark.slow
def test_tables_of_another_kind_of_study_are_left_as_they_are(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({"kind": "distillation"}))
    (tmp_path / "table.csv").write_text("name")
    done = command("launch.ablate", "--study=compression_quick", f"--out={tmp_path}", "--table")
    assert done.status == 2 and "holds a study of kind 'distillation', not 'vae'" in done.err
    assert (tmp_path / "table.csv").read_text() == "name"


@pytest.mark.slow
def test_two_workers_share_a_study_that_resumes_and_reports_what_is_there(tmp_path):
    config = study()
    with claimed_cell(tmp_path / "cells" / "t8_s16_c4-consistency-seed0"):  # by the other worker
        first = ablate.run_study(config, tmp_path, worker=0, workers=2)
    assert [row["name"] for row in first] == ["t4_s16_c4-consistency-seed0"]
    written = tmp_path / "cells" / "t4_s16_c4-consistency-seed0" / RESULT
    stamp = written.stat().st_mtime_ns
    with claimed_cell(tmp_path / "cells" / "t8_s16_c4-consistency-seed0"):
        assert ablate.run_study(config, tmp_path, worker=0, workers=2) == first
    assert written.stat().st_mtime_ns == stamp
    assert first[0]["tokens"] == 13 * 24 * 32 and first[0]["ratio"] == 768.0
    samples = first[0]["diffusability"]["samples"]
    assert samples["motion_energy"]["n"] == 3 and {"accuracy_all", "flicker", "diversity"} <= set(samples)
    assert first[0]["bits"] > 0 and len(first[0]["psnr_by_clip"]) == 8
    assert write_study("test", config, first, tmp_path) == {
        **{"out": str(tmp_path), "cells": 2, "finished": 1, "failed": 0, "best": None}
    }
    floor, learning = first[0]["linear"]["psnr"]["value"], first[0]["learning"]
    assert floor > first[0]["metrics"]["psnr"]["value"] and "below a linear code" in learning["untrained"]
    assert set(learning["psnr"]) == {"half", "three_quarters", "all"}
    with pytest.raises(UserError, match=r"was made with another vae\.steps: name another --out"):
        ablate.run_study(study(vae=dataclasses.replace(config.vae, steps=4)), tmp_path, worker=0, workers=2)
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert rows[0]["name"] == first[0]["name"] and float(rows[0]["psnr"]) == first[0]["metrics"]["psnr"]["value"]
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["rows"][0]["server_step_flops"] > table["rows"][0]["mobile_step_flops"]
    for name in ("quality_vs_ratio.png", "quality_vs_phone.png", "rate_distortion.png", "spectrum.png", "clips.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert "t4_s16_c4" in page and "none of them is called best" in page


@pytest.mark.slow
def test_a_cell_runs_on_two_hosts_in_a_bucket_and_is_collected(tmp_path):
    folder, data = new_folder(), tmp_path / "clips"
    sizes = {"train": 16, "validation": 8, "test": 8}
    prepare("moving_shapes", data, world=World(counts=(1,)), clip=ClipShape(9, 32, 32), sizes=sizes)
    small = {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "optimizer.name": "adamw", "batch_size": 4}
    keys = {f"{part}.{key}": value for part in ("vae", "dit") for key, value in small.items()}
    keys |= {"compressions": "t4_s16_c4,t8_s16_c4", "size": "micro", "protocol": "steps", "data": data, "samples": 3}
    keys |= {"dit.model.depth": 1, "sampling.steps": 1, "vae.stats_batches": 2}
    study = ["launch.ablate", "--study=compression", *(f"--config.{key}={value}" for key, value in keys.items())]
    cell = [*study, f"--out={folder}", "--cell=t4_s16_c4-plain-seed0"]
    for status, _, err in finish_job(start_job(cell, processes=2)):
        assert status == 0, err
    done = command(*study, f"--out={folder}", "--table")
    assert done.status == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["finished"] == 1
    assert (folder / "report.html").exists() and (folder / "cells" / "t4_s16_c4-plain-seed0" / "generation").is_dir()


def test_cells_of_a_study_have_equal_budgets():
    """Of training FLOPs to a step, of steps alone, or of steps and the decoder's FLOPs to a tenth."""
    long = dataclasses.replace(study().vae, steps=100)
    flops = {
        protocol: {row["name"]: row for row in ablate.plan(study(protocol=protocol, vae=long))}
        for protocol in ("flops", "steps")
    }
    (first, second), (by_steps, other) = ([*flops[protocol].values()] for protocol in ("flops", "steps"))
    assert second["vae_flops"] == pytest.approx(first["vae_flops"], rel=0.05) and by_steps == first
    assert other["vae_flops"] > 1.5 * first["vae_flops"]
    server = dataclasses.replace(study().server, clip="9x64x64")
    tiny_sizes = study(protocol="decoder", size="tiny", server=server)
    sizes = [budget.network(tiny_sizes, name) for name in tiny_sizes.compressions]
    spent = [decoder_flops_per_frame(config, ClipShape.parse(server.clip)) for config in sizes]
    assert spent[1] == pytest.approx(spent[0], rel=budget.TOLERANCE)
    small = study(protocol="decoder", server=server, compressions=("t8_s32_c4", "t2_s4_c4"))
    with pytest.raises(UserError, match="no widths give t2_s4_c4 the decoder's budget"):
        ablate.cells(small)


@pytest.mark.parametrize(
    ("psnr", "floor", "verdict"),
    [
        ((20.0, 20.1, 20.15), 19.0, ""),
        ((20.0, 20.1, 20.15), None, ""),
        ((20.0, 20.1, 20.15), 23.0, "3.0 dB below a linear code"),
        ((18.0, 19.0, 19.5), 15.0, "gained 0.5 dB in the last quarter"),
    ],
)
def test_a_cell_counts_as_trained_above_the_linear_code_and_when_it_gains_no_more(psnr, floor, verdict):
    curve = dict(zip(("half", "three_quarters", "all"), psnr, strict=True))
    assert Learning(curve, 20.0 if floor != 15.0 else 19.5, floor).verdict == verdict


def test_the_learning_curve_runs_through_both_phases(tmp_path):
    for run, values in (("vae", {1: 10.0, 3: 12.0, 6: 13.0}), ("vae_finetuned", {1: 14.0, 2: 15.0})):
        (tmp_path / run).mkdir()
        lines = [json.dumps({"step": step, "loss": 0.0, "eval_psnr": value}) for step, value in values.items()]
        (tmp_path / run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    curve = psnr_curve([tmp_path / "vae", tmp_path / "vae_finetuned"])
    assert curve == {"half": 12.0, "three_quarters": 13.0, "all": 15.0}


def test_a_failed_cell_is_recorded_and_the_others_go_on(tmp_path):
    ran = []

    def run(name: str, folder: Path) -> dict:
        ran.append(name)
        if name == "second":
            raise TrainingDiverged("step 3: the loss is nan")
        if name == "third":
            raise Stopped("saved at step 2", status=143)
        return {"name": name}

    names = ["first", "second", "third"]
    for _ in range(2):
        with pytest.raises(Stopped, match="saved at step 2"):
            cells.run_cells(names, tmp_path, run)
    assert ran == ["first", "second", "third", "third"]
    assert cells.finished(names, tmp_path) == [{"name": "first"}]
    assert cells.failures(tmp_path) == {"second": "TrainingDiverged: error: step 3: the loss is nan"}


def test_workers_wait_for_worker_0_to_prepare(tmp_path, monkeypatch):
    data, waited = tmp_path / "data", []

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        cells.share(data.mkdir, data.exists, worker=0)

    monkeypatch.setattr(cells.time, "sleep", meanwhile)
    cells.share(lambda: pytest.fail("worker 1 prepares"), data.exists, worker=1)
    assert len(waited) == 1


def test_the_summary_is_the_mean_and_spread_over_seeds():
    fixed = dict.fromkeys(COSTS, 1.0) | {"untrained": ""}
    qualities = dict.fromkeys(("ssim", "flicker", "high_frequency", "lattice", "samples_right"), 0.0)
    rows = [
        {"compression": "t4_s8_c4", "objective": "plain", "seed": seed, "psnr": psnr, **fixed, **qualities}
        for seed, psnr in enumerate((20.0, 22.0, 24.0))
    ]
    (group,) = summary(rows)
    assert group["seeds"] == 3 and group["psnr"] == {"mean": 22.0, "std": 2.0}


def result(compression: str, objective: str, psnr: float, loss: float, seconds: float = 1.0, **samples: float) -> dict:
    """A cell's result on videos whose content no detector reads."""
    score = {"value": psnr, "low": psnr, "high": psnr, "n": 8}
    moves = {"motion_energy": {**score, "value": 3.0}, "flicker": score}
    curve = {"latents": [1.0, 0.5], "rgb": [1.0, 0.1]}
    costs = dict.fromkeys(COSTS[2:], 1e12) | {"phone_seconds": seconds}
    learning = {"psnr": dict.fromkeys(("half", "three_quarters", "all"), psnr), "floor_psnr": 19.0, "untrained": ""}
    diffused = moves | {key: {**score, "value": value} for key, value in samples.items()}
    return {
        **{"name": f"{compression}-{objective}-seed0", "compression": compression, "objective": objective, "seed": 0},
        **{"ratio": 48.0, "tokens": 1344, **costs, "metrics": {"psnr": score, "ssim": score}},
        **{"high_frequency": {"latents": 0.5}, "lattice": {"amplitude": 1.0}, "spectrum": curve, "bits": 0.1},
        **{
            "seconds": {"all": 1.0},
            "linear": {},
            "learning": learning,
            "psnr_by_clip": [psnr + i % 3 for i in range(8)],
        },
        "diffusability": {"eval_loss": loss, "samples": diffused, "real": moves},
    }


def test_a_study_on_own_videos_claims_no_more_than_it_measured(tmp_path, monkeypatch):
    picture = lambda study, names, out: save_figure(panels(1, width=1)[0], out / "clips.png")
    monkeypatch.setattr(compression_report, "write_clips", picture)
    config = study(data="videos", objectives=("plain",))
    results = [result("t4_s16_c4", "plain", 25.0, 0.4321), result("t8_s16_c4", "plain", 20.0, 0.3)]
    assert write_study("own", config, results, tmp_path)["best"] is None
    page = (tmp_path / "report.html").read_text()
    assert "evaluated on 8 held out" in page and "0.4321" in page and page.count("<img") == 5
    assert "reads back" not in page and "no compression is called best" in page
    assert "-5.00" in page and "25.00 (25.00 to 25.00)" in page
    # Objectives of one compression have losses on one scale.
    results = [result("t4_s16_c4", "plain", 25.0, 0.4), result("t4_s16_c4", "equivariance", 24.0, 0.3)]
    assert write_study("own", config, results, tmp_path)["best"] == "t4_s16_c4-equivariance"
    with pytest.raises(UserError, match="an older version evaluated cell t4_s16_c4-plain-seed0: remove its"):
        write_study("own", config, [{key: value for key, value in results[0].items() if key != "bits"}], tmp_path)


def test_the_front_is_what_no_trained_cell_beats_at_its_phone_time():
    """By PSNR, more of which is better, and by KVD, less of which is."""
    points = [(1.0, 5.0), (2.0, 4.0), (1.0, 6.0), (3.0, 7.0)]
    assert front(points) == [2, 3]
    results = [
        result("t4_s8_c16", "plain", 30.0, 0.4, seconds=8.0, kvd=0.2),
        result("t4_s16_c32", "plain", 25.0, 0.4, seconds=2.0, kvd=0.1),
        result("t8_s32_c128", "plain", 20.0, 0.4, seconds=1.0, kvd=0.3),
    ]
    groups = summary(table_rows(results))
    psnr, kvd = QUALITY.heading, KVD.heading
    assert [group.get("front") for group in groups] == [[psnr], [psnr, kvd], [psnr, kvd]]
    assert best_group(groups) == "t4_s16_c32-plain" and groups[0]["sample_motion"]["mean"] == 1.0
    results[2]["learning"]["untrained"] = "gained 1.0 dB in the last quarter"
    assert "front" not in summary(table_rows(results))[2]


def test_data_are_told_before_the_first_cell(tmp_path):
    """Data that are not there and a prepared set with too few test clips; a folder of videos is prepared."""
    with pytest.raises(UserError, match="is no data set: make one"):
        ablate.run_study(study(data=str(tmp_path / "none")), tmp_path / "study")
    prepare(
        "moving_shapes", tmp_path / "few", clip=ClipShape(5, 32, 32), sizes={"train": 2, "validation": 1, "test": 6}
    )
    with pytest.raises(UserError, match="has 6 test clips, a verdict needs 8"):
        ablate.run_study(study(data=str(tmp_path / "few")), tmp_path / "study")
    assert not (tmp_path / "study").exists()
    (tmp_path / "videos").mkdir()
    config = study(data=str(tmp_path / "videos"))
    assert study_data(config, tmp_path / "study") == tmp_path / "study" / "data"
    with pytest.raises(UserError, match="has no captions.jsonl"):
        make_data(config, tmp_path / "study" / "data")
