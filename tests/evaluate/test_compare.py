"""Comparisons say what differs, by how much and how surely, of evaluations that can be compared, and refuse others."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.evaluate import run as evaluate_run
from mobile_video_jax.evaluate.compare import compare_evaluations, most_unlike
from mobile_video_jax.evaluate.compare_report import write_comparison
from mobile_video_jax.evaluate.evaluated_run import read_clip, read_evaluation
from mobile_video_jax.evaluate.evaluation import write_clips
from mobile_video_jax.evaluate.run import evaluated_runs, shown_names
from mobile_video_jax.metrics.interval import FEW
from mobile_video_jax.metrics.motion import BACK_AND_FORTH, MOTION_ENERGY
from mobile_video_jax.metrics.paired import compare
from mobile_video_jax.metrics.reconstruction import PSNR
from mobile_video_jax.train.run import write_run
from tests.commands import run

COUNT, ODD = 12, 9  # clips, and one that is far apart in the two runs
PROTOCOL = {"data": "data/shapes", "data_digest": "d1", "split": "test", "clip": "3x16x16"}
PROMPTS = [f"a red circle {i}" for i in range(COUNT)]


def evaluation(folder: Path, better: float, run: str = "nowhere", stage: str = "dit", **changes) -> Path:
    """An evaluation of drawn clips whose PSNR and flicker are `better` above those of another, and by chance."""
    rng = np.random.default_rng(int(10 * better))
    names = write_clips(folder, PROMPTS, rng.integers(0, 255, (COUNT, 3, 16, 16, 3), np.uint8))
    hard = np.linspace(20, 30, COUNT)
    psnr = hard + better * (1 + (np.arange(COUNT) == ODD)) + rng.normal(0, 0.1, COUNT)
    scores = {
        "psnr": psnr.tolist(),
        "flicker": (better + rng.normal(0, 0.1, COUNT)).tolist(),
        "motion_energy": (better + rng.normal(0, 0.1, COUNT)).tolist(),
        "accuracy_all": [1.0, 0.0] * (COUNT // 2),
        "ssim": [None, *[0.5] * (COUNT - 1)],
    }
    metrics = {name: {"value": 1.0, "low": 0.5, "high": 1.5, "n": COUNT} for name in [*scores, "fvd"]}
    protocol = PROTOCOL | {"run": run, "sampling": {"steps": 40 if better else 4, "guidance": 5.0}} | changes
    report = {"stage": stage, "metrics": metrics, "protocol": protocol}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "scores.json").write_text(json.dumps({"clips": names, "prompts": PROMPTS, "scores": scores}))
    return folder


def changed(folder: Path, file: str, **changes) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def read(*folders: Path):
    return [read_evaluation(folder, folder.name) for folder in folders]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[Path]:
    """Two evaluations, the second of a run that is there and better."""
    root = tmp_path_factory.mktemp("pair")
    for name, width in (("plain", 8), ("wide", 16)):
        write_run(root / "runs" / name, "dit", {"seed": 0, "model": {"width": width}}, {})
        lines = [{"step": i, "loss": 1 / i, **({"eval_loss": 2 / i} if i % 100 == 0 else {})} for i in range(1, 901)]
        (root / "runs" / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = [str(root / "runs" / name) for name in ("plain", "wide")]
    return [evaluation(root / "plain", 0.0, runs[0]), evaluation(root / "wide", 1.0, runs[1])]


@pytest.fixture(scope="module")
def written(pair, tmp_path_factory) -> tuple[Path, str]:
    """The folder that the command leaves, and what it prints."""
    out = tmp_path_factory.mktemp("compare") / "out"
    done = run("launch.compare", "--runs", str(pair[0]), "--out", str(out), f"--runs={pair[1]}", str(pair[0]))
    assert done.status == 0 and done.err == "", done.err
    return out, done.out


def test_differences_are_those_of_the_paired_bootstrap(pair):
    first, second = read(*pair)
    rows = compare_evaluations([first, second]).as_json()["differences"]
    assert list(rows) == ["psnr", "flicker", "motion_energy", "accuracy_all", "ssim"]  # fvd is of the whole set
    for metric in (PSNR, BACK_AND_FORTH, MOTION_ENERGY):
        expected = compare(first.scores[metric], second.scores[metric])
        row = rows[metric.key]["wide"]
        assert (row["difference"], row["low"], row["high"], row["n"]) == (
            *(expected.difference, expected.low, expected.high),
            COUNT,
        )
    assert rows["psnr"]["wide"]["difference"] == pytest.approx(1 + 1 / COUNT, abs=0.1)
    assert rows["ssim"]["wide"]["n"] == COUNT - 1  # a clip without a value in either


def test_better_and_worse_are_said_where_they_are_known_and_clear(pair):
    rows = compare_evaluations(read(*pair)).as_json()["differences"]
    verdicts = {name: (row["wide"]["differs"], row["wide"]["better"]) for name, row in rows.items()}
    assert verdicts == {
        "psnr": (True, True),
        "flicker": (True, False),
        "motion_energy": (True, None),
        "accuracy_all": (False, None),
        "ssim": (False, None),
    }


def test_few_pairs_give_no_verdict_and_the_page_says_why(pair, tmp_path):
    folder, few = evaluation(tmp_path / "few", 1.0), FEW - 1
    scores = json.loads((folder / "scores.json").read_text())
    changed(folder, "scores.json", clips=scores["clips"][:few], prompts=PROMPTS[:few])
    changed(folder, "scores.json", scores={name: values[:few] for name, values in scores["scores"].items()})
    comparison = compare_evaluations(read(pair[0], folder))
    rows = [row["few"] for row in comparison.as_json()["differences"].values()]
    assert all((row["differs"], row["better"], row["enough_pairs"]) == (False, None, False) for row in rows)
    write_comparison(comparison, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "With fewer than 8 pairs no run is called better or worse" in page
    assert "(too few pairs)" in page and '<b class="good">' not in page


def test_the_videos_of_one_vbench_prompt_count_as_one(tmp_path):
    folders = [evaluation(tmp_path / name, better, stage="vbench") for name, better in (("a", 0.0), ("b", 1.0))]
    for folder in folders:
        changed(folder, "scores.json", prompts=[PROMPTS[i // 4] for i in range(COUNT)])
    first, second = read(*folders)
    row = compare_evaluations([first, second]).as_json()["differences"]["psnr"]["b"]
    [metric] = [metric for metric in first.scores if metric.key == "psnr"]  # none that VBench has
    means = [run.scores[metric].reshape(-1, 4).mean(axis=1) for run in (first, second)]
    assert row["n"] == 3 and row["low"] == pytest.approx(compare(*means).low)


def test_only_what_differs_is_listed(pair):
    numbers = compare_evaluations(read(*pair)).as_json()
    assert numbers["settings"] == {"sampling.steps": {"plain": 4, "wide": 40}}
    assert numbers["config"] == {"model.width": {"plain": 8, "wide": 16}}


def test_clips_are_paired_by_name_not_by_place(pair, tmp_path):
    first, second = read(*pair)
    turned = evaluation(tmp_path / "turned", 1.0)
    scores = json.loads((turned / "scores.json").read_text())
    order = list(range(COUNT - 1, 3, -1))
    scores = {key: [scores[key][i] for i in order] for key in ("clips", "prompts")} | {
        "scores": {name: [values[i] for i in order] for name, values in scores["scores"].items()}
    }
    (turned / "scores.json").write_text(json.dumps(scores))
    row = compare_evaluations([first, *read(turned)]).as_json()["differences"]["psnr"]["turned"]
    expected = compare(first.scores[PSNR][4:], second.scores[PSNR][4:])
    assert row["n"] == COUNT - 4 and row["difference"] == pytest.approx(expected.difference)


def test_the_clip_that_differs_most_comes_first(pair):
    first, second = read(*pair)
    psnr = {PSNR: first.scores[PSNR]}
    first.scores.clear()
    first.scores.update(psnr)
    assert most_unlike([first, second], list(first.samples))[0] == (PROMPTS[ODD], ODD)


def test_the_command_leaves_a_table_a_page_and_json(pair, written):
    out, printed = written
    *table, path, last = printed.splitlines()
    names = [pair[0].name, "wide", f"{pair[0].name} (2)"]
    assert table[0].startswith("metric") and any(
        re.search(r"PSNR \(dB\) +wide +\+1\.\d+ better .*100\.0%", line) for line in table
    )
    assert path == str(out / "report.html")
    assert json.loads(last) == json.loads((out / "report.json").read_text())
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric"], row["run"]) for row in rows] == [
        (metric, name)
        for metric in ("psnr", "flicker", "motion_energy", "accuracy_all", "ssim", "fvd")
        for name in names
    ]
    assert rows[0]["difference"] == rows[-2]["difference"] == "" and float(rows[1]["difference"]) > 0.9
    assert {row["value"] for row in rows} == {"1.0"}


def test_the_page_shows_clips_side_by_side_curves_and_settings(written):
    html = (written[0] / "report.html").read_text()
    assert html.count("<video") == 3 * 8
    assert html.count("<svg") == 5 + 2  # a metric each, training and held-out loss
    assert {"training loss", "held-out loss", "sampling.steps", "model.width"} <= set(re.findall(r"[\w.-]+ ?\w+", html))
    assert "a red circle 0 (seed 0)" in html and f"a red circle {ODD} (seed {ODD})" in html
    assert re.search(r'<b class="good">\+1\.\d+ better</b>', html) and re.search(r'<b class="bad">\+.* worse</b>', html)


def test_evaluations_without_clips_or_runs_compare_too(pair, tmp_path):
    folder = evaluation(tmp_path / "alone", 1.0)
    (folder / "clips" / "samples.json").unlink()
    write_comparison(compare_evaluations(read(pair[0], folder)), tmp_path / "out")
    assert "<video" not in (tmp_path / "out" / "report.html").read_text()


REFUSED = {
    "stage": ({"stage": "vae"}, "of the stages dit and vae: compare runs of one stage"),
    "data": ({"data_digest": "d2"}, "data_digest d1 and d2"),
    "split": ({"split": "validation"}, "split test and validation"),
    "clip": ({"clip": "5x16x16"}, "clip 3x16x16 and 5x16x16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_runs_on_other_clips_are_refused(pair, tmp_path, name):
    changes, words = REFUSED[name]
    with pytest.raises(UserError, match=words):
        compare_evaluations(read(pair[0], evaluation(tmp_path / "other", 1.0, **changes)))


def test_metrics_computed_in_other_ways_are_refused(tmp_path):
    folders = [evaluation(tmp_path / net, 1.0, metrics={"lpips": net}) for net in ("alex", "vgg")]
    with pytest.raises(UserError, match="lpips alex and vgg"):
        compare_evaluations(read(*folders))


def test_other_prompts_are_refused(pair, tmp_path):
    folder = evaluation(tmp_path / "other", 1.0)
    changed(folder, "scores.json", prompts=[*PROMPTS[:-1], "a blue square"])
    with pytest.raises(UserError, match="'a red circle 11' and 'a blue square': evaluate them on the same list"):
        compare_evaluations(read(pair[0], folder))
    changed(folder, "scores.json", clips=[f"{i}.mp4" for i in range(COUNT)])
    with pytest.raises(UserError, match="have no common clips"):
        compare_evaluations(read(pair[0], folder))


def test_one_run_has_nothing_beside_it(pair):
    with pytest.raises(UserError, match="two runs or more"):
        compare_evaluations(read(pair[0]))


DAMAGED = {
    "scores.json": ({"scores": {"psnr": [1.0]}}, "not one value a clip"),
    "report.json": ({"metrics": {"psnr": 3.0}}, "holds no evaluation of this version"),
    "clips/samples.json": ({"clips": [{"file": "a.mp4"}]}, "'prompt'"),
}


@pytest.mark.parametrize("file", DAMAGED)
def test_damaged_evaluations_are_refused(tmp_path, file):
    folder = evaluation(tmp_path / "damaged", 1.0)
    changes, words = DAMAGED[file]
    changed(folder, file, **changes)
    with pytest.raises(UserError, match=words):
        read(folder)
    (folder / file).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read(folder)


def test_a_broken_clip_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for name in ("a.mp4", "none.mp4"):
        with pytest.raises(UserError, match=f"{name} does not decode .*: run launch.evaluate again"):
            read_clip(tmp_path / name)


def test_names_are_as_short_as_tells_runs_apart():
    assert shown_names([Path("a/eval"), Path("b/eval"), Path("c")]) == ["a/eval", "b/eval", "c"]
    assert shown_names([Path("x/a/e"), Path("y/a/e")]) == ["x/a/e", "y/a/e"]
    assert shown_names([Path("a"), Path("a")])[1].endswith("a (2)")


def test_run_directories_are_evaluated_first_as_their_stage_asks(pair, tmp_path, monkeypatch):
    write_run(tmp_path / "vae", "vae", {}, {})
    done = []
    monkeypatch.setattr(
        evaluate_run, "evaluate_vae", lambda task: done.append(task) or {"out": evaluation(task.out, 1.0)}
    )
    evaluations = evaluated_runs([pair[0], tmp_path / "vae"], Path("data"), tmp_path / "out")
    assert [one.name for one in evaluations] == ["plain", "vae"] and evaluations[1].folder == tmp_path / "out" / "vae"
    assert [(task.run.path, task.data, task.out) for task in done] == [
        (tmp_path / "vae", Path("data"), evaluations[1].folder)
    ]


def test_run_directories_need_data_and_a_stage_that_is_evaluated(pair, tmp_path):
    write_run(tmp_path / "other", "other", {}, {})
    with pytest.raises(UserError, match="other is a run directory: add --data=DIR"):
        evaluated_runs([pair[0], tmp_path / "other"], None, tmp_path)
    with pytest.raises(UserError, match="stage 'other', which holds no transformer"):
        evaluated_runs([pair[0], tmp_path / "other"], Path("data"), tmp_path)
    with pytest.raises(UserError, match="there is no .*report.json: name the folder that launch.evaluate wrote"):
        evaluated_runs([pair[0], tmp_path], None, tmp_path)
