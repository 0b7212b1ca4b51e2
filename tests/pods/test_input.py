"""How fast a host makes batches, and what that means for a step."""

import json

import pytest

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.pods.loader_rate import host_share, measure_loader, plan
from tests import tiny
from tests.commands import run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="module")
def values(data):
    return to_config_dict(tiny.dit_config(data, token_budget=8 * 48)).to_dict()


def test_a_host_draws_its_part_of_the_batch(values):
    share = host_share(values, batch_size=16, hosts=4)
    assert share["batch_size"] == 4 and share["token_budget"] == 96 and values["token_budget"] == 384
    measured = measure_loader({**share, "token_budget": 0}, seconds=0.2)
    assert measured["clips_per_second"] == pytest.approx(4 * measured["batches_per_second"])
    # 3 x 4 x 4 places of 6 channels, 12 text states of 384, both float32; the text's mask and the record's number.
    clip = 4 * (48 * 6 + 12 * 384) + 12 + 8
    assert measured["bytes_per_second"] == pytest.approx(clip * measured["clips_per_second"])
    assert 0 < measured["processor_seconds_a_batch"] < 1
    with pytest.raises(UserError, match="batch_size 16 does not divide over 3 hosts"):
        host_share(values, batch_size=16, hosts=3)


@pytest.mark.parametrize(
    ("step_seconds", "processes", "ratio", "needed"), [(0.5, 0, 2.0, 0), (0.1, 0, 0.4, 3), (0.1, 4, 0.4, 10)]
)
def test_processes_are_asked_for_where_threads_do_not_keep_up(step_seconds, processes, ratio, needed):
    planned = plan({"batches_per_second": 4.0}, step_seconds, processes)
    assert planned["ratio"] == pytest.approx(ratio) and planned["enough"] == (ratio >= 1)
    assert planned["loader_processes"] == needed


def test_the_command_takes_step_and_hosts_from_a_report(data, tmp_path):
    compiled = {"topology": "v5p:2x2x2", "slices": 2, "batch_size": 32, "step_seconds": 1e-5}
    (tmp_path / "report.json").write_text(json.dumps(compiled))
    keys = {"data": data, "clip": tiny.CLIP, "compression": tiny.COMPRESSION, "text_tokens": 12}
    config = ["--config=configs/dit.py:tiny", *(f"--config.{key}={value}" for key, value in keys.items())]
    done = run("launch.input", *config, f"--compiled={tmp_path / 'report.json'}", "--seconds=0.1")
    assert done.status == 0, done.err
    sentence, report = done.out.splitlines()
    report = json.loads(report)
    assert report["hosts"] == 4 and report["batch_size"] == 32 and not report["enough"]
    assert report["loader_processes"] > 1 and f"loader_processes={report['loader_processes']}" in sentence
    assert "loading batches of 8 clips" in done.err


@pytest.mark.parametrize("content", ["{}", "[]", None])
def test_a_file_that_is_no_report_is_told_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    done = run("launch.input", "--config=configs/dit.py:tiny", f"--compiled={tmp_path / 'report.json'}")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "report.json" in done.err and "name the report that launch.compile --out wrote" in done.err
