"""launch.inspect as a user types it: a run's activations, tables, and flags that do not go together."""

import json
from functools import partial

import numpy as np
import pytest

from tests import tiny
from tests.commands import run
from tests.evaluate.test_activations import overflowing, write

inspect = partial(run, "launch.inspect")


@pytest.mark.parametrize("flag", ["--step=3", "--best"])
def test_a_checkpoint_of_no_run_is_refused(flag):
    done = inspect("--config=dit:tiny", flag)
    assert done.status == 2 and "are for a trained model: add --activations" in done.err


def test_activations_of_a_run_are_a_table_and_json(tmp_path):
    tiny.latents(tmp_path / "latents")
    write(tmp_path / "dit", tmp_path / "elsewhere", overflowing())
    arguments = ("--activations", f"--model={tmp_path}/dit", f"--data={tmp_path}/latents", "--batches=1")
    done = inspect(*arguments)
    assert done.status == 0 and done.err == "activations: batch 1/1\n"
    *text, last = done.out.splitlines()
    measured = json.loads(last)
    for entry in measured["activations"].values():
        assert entry["headroom"] == pytest.approx(65_504 / entry["value"])
        assert entry["value"] == max(entry.get("by_block", [entry["value"]]))
    rows = {line.split()[0]: line.split()[1:] for line in text}
    for kind, entry in measured["activations"].items():
        assert rows[kind][:2] == ["-" if entry["block"] is None else str(entry["block"]), f"{entry['value']:,.6g}"]
        overflows = min(entry["headroom"], entry.get("squares_headroom", np.inf)) < 1
        assert len(rows[kind]) == 3 + ("squares_headroom" in entry) + overflows
    assert rows["ffn/up"][-1] == "overflows"


def test_costs_are_a_table_of_parts():
    out = inspect("--config=configs/dit.py:server").out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["ffn"] == ["939,810,816", "2,525,440,770,048", "3,759,243,264", "22,020,096"]
    assert rows["self_attention_products"] == ["414,330,126,336", "115,605,504"]
    assert rows["total"] == ["1,919,757,440", "4,896,005,292,032", "7,679,029,760"]


@pytest.mark.parametrize("config", ["reward:wan", "critic:tiny"])
def test_a_stage_without_costs_says_what_it_is(config):
    done = inspect(f"--config={config}")
    assert done.status == 0 and "parameters: " in done.out


def test_hours_of_a_training_are_a_table_of_named_gpus_and_tpus():
    done = inspect("--hours", "--config=dit:small")
    rows = dict(line.strip("| ").split(" | ") for line in done.out.splitlines() if line.startswith("| "))
    assert done.status == 0 and {"L4", "RTX 4090", "H100", "H200", "v5e", "v5p", "v6e"} <= set(rows)
    assert rows["device"] == "dit:small, 200,000 steps of 64 clips" and "no accelerator was timed" in done.out
    small = json.loads(done.out.splitlines()[-1])["trainings"]["dit:small"]["accelerators"]
    assert small["H100"]["devices"] == 1 and small["H100"]["bytes"] < 0.8 * 80e9
    assert small["H200"]["device_hours"] < small["H100"]["device_hours"] < small["L4"]["device_hours"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --config or --model=RUN; for a trained model's activations add --activations"),
        (("--activations",), "give --model=RUN and no --config"),
        (("--activations", "--model=.", "--config=configs/dit.py"), "give --model=RUN and no --config"),
        (("--config=configs/dit.py", "--batches=2"), "add --activations"),
        (("--hours", "--activations", "--model=."), "--hours and --activations are two tables"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(arguments, message):
    done = inspect(*arguments)
    assert done.status == 2 and done.out == "" and done.err.startswith("error: ")
    assert done.err.count("\n") == 1 and message in done.err
