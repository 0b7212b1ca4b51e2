"""A checkpoint is chosen by its step or as the best: in Python, in every command that reads a run, and in configs."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import mobile_video_jax as mvj
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.mesh import MeshConfig, make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.checkpoint import save_model
from tests import tiny
from tests.commands import start

LOSSES = {3: 1.0, 7: 2.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with steps 1, 3 and 7, of which each parameter of the last two is the step; the last two were evaluated."""
    root = tmp_path_factory.mktemp("runs")
    run = tiny.dit_run(root / "dit", tiny.dit_config(tiny.latents(root / "latents"), text_tokens=16))
    for step, loss in LOSSES.items():
        save_model(run, step, jax.tree.map(lambda x, step=step: np.full(x.shape, step, x.dtype), params(Run.open(run))))
        metrics = run / "checkpoints" / str(step) / "metrics" / "metrics"
        metrics.parent.mkdir()
        metrics.write_text(json.dumps({"loss": loss}))
    return run


def params(run: Run):
    return run.sharded_params(make_mesh(MeshConfig(), jax.local_devices()[:1]))


def value(run: Run) -> float:
    """The value of all parameters."""
    values = np.unique(np.concatenate([np.unique(x) for x in jax.tree.leaves(params(run))]))
    assert values.size == 1
    return float(values[0])


@pytest.mark.parametrize(
    ("suffix", "choice", "step"),
    [("", {}, 7), ("", {"step": 3}, 3), ("", {"best": True}, 3), ("@3", {}, 3), ("@best", {}, 3), ("@7", {}, 7)],
)
def test_a_step_is_chosen_by_an_argument_or_in_the_name(run, suffix, choice, step):
    opened = Run.open(f"{run}{suffix}", **choice)
    assert (opened.path, opened.step, value(opened)) == (run, step, step)
    assert value(Run.open(opened.name)) == step


def test_the_front_door_takes_a_step(run):
    model = mvj.load(run, best=True)
    assert model.run.step == 3 and float(jax.tree.leaves(model.params)[0].ravel()[0]) == 3


def test_a_copy_holds_the_chosen_step(run, tmp_path):
    Run.open(run, step=3).copy(tmp_path / "copy")
    assert value(Run.open(tmp_path / "copy")) == 3 and Run.open(tmp_path / "copy").step == 3


def test_training_starts_from_the_step_that_init_from_names(run):
    stage = DitStage(tiny.dit_config(run.parent / "latents", text_tokens=16, init_from=f"{run}@best"))
    target = stage.denoiser.abstract_params(make_mesh(MeshConfig()))
    assert all((x == 3).all() for x in jax.tree.leaves(stage.pretrained(target)))


def test_a_name_with_a_step_is_found_where_its_run_has_moved(run, tmp_path, monkeypatch):
    (tmp_path / "after").mkdir()
    (tmp_path / "after" / "pruned").mkdir()
    record = {"folder": str(tmp_path / "before" / "pruned"), "working_directory": str(tmp_path)}
    (tmp_path / "after" / "dit").mkdir()
    opened = Run(tmp_path / "after" / "pruned", record)
    assert opened.find(str(tmp_path / "before" / "dit@3")) == str(tmp_path / "after" / "dit@3")


def test_a_step_that_is_not_there_is_refused(run, tmp_path):
    for opens in (lambda: Run.open(run, step=4), lambda: Run.open(f"{run}@4")):
        with pytest.raises(UserError, match="dit holds no step 4; it has 1, 3, 7"):
            opens()
    with pytest.raises(UserError, match="vae was evaluated, so none is the best: name a step; it has 1"):
        Run.open(run / "vae", best=True)
    with pytest.raises(UserError, match="both a step, 3, and the best checkpoint of .*dit are chosen: leave one out"):
        Run.open(run, step=3, best=True)


COMMANDS = {
    "launch.sample": ["--model={}", "--prompt=a red circle"],
    "launch.evaluate": ["--model={}", "--data={}/../latents"],
    "launch.vbench": ["--model={}", "--prompts={}/../prompts.txt"],
    "launch.encode": ["--vae={}/vae", "--data={}/../latents"],
    "launch.prune": ["--model={}"],
    "launch.compare": ["--runs", "{}", "{}/vae", "--data={}/../latents"],
    "launch.inspect": ["--activations", "--model={}"],
    "export.run": ["--model={}"],
}


def test_every_command_that_reads_a_run_refuses_a_step_that_is_not_there(run):
    (run.parent / "prompts.txt").write_text("a red circle\n")
    started = {}
    for command, arguments in COMMANDS.items():
        out = [] if command == "launch.inspect" else [f"--out={run.parent}/{command}"]
        started[command] = start(command, *(part.replace("{}", str(run)) for part in arguments), *out, "--step=4")
    for command, process in started.items():
        done = process.finish()
        assert done.status == 2 and "holds no step 4; it has 1" in done.err.splitlines()[-1], (command, done.err)
        assert "Traceback" not in done.err and not (run.parent / command).exists(), command


def test_sample_and_compare_say_which_checkpoint(run):
    (run.parent / "prompts.txt").write_text("a red circle\n")
    two = start("launch.compare", "--runs", "a", "b", f"--out={run.parent}/compared", "--best")
    out = run.parent / "samples"
    sampling = start("launch.sample", f"--model={run}", "--prompt=a red circle", f"--out={out}", "--best", "--steps=1")
    assert sampling.finish().status == 0 and json.loads((out / "samples.json").read_text())["step"] == 3
    assert "there is no a/report.json" in two.finish().err
