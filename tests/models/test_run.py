"""Runs: a record read once, the models that it holds, and how they say that they are to be sampled."""

import collections
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.parallel.mesh import MeshConfig, make_mesh
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.run import write_run
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    config = tiny.dit_config(Path("nowhere"), text_tokens=16)
    return tiny.dit_run(tmp_path_factory.mktemp("runs") / "dit", config)


@pytest.fixture
def reads(monkeypatch) -> collections.Counter[Path]:
    """How often each file's text is read."""
    counts: collections.Counter[Path] = collections.Counter()
    read_text = Path.read_text

    def counted(path: Path, *args, **kwargs) -> str:
        counts[path] += 1
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", counted)
    return counts


def write_record(run: Path, **changes) -> None:
    path = run / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stage": "dit", "config": {}} | changes))


def test_a_generator_reads_each_record_once(run, reads):
    generator = Generator.load(run)
    assert generator.sample_config().steps == 40
    assert {path: count for path, count in reads.items() if path.name in ("run.json", "latents.json")} == {
        run / "run.json": 1,
        run / "vae" / "run.json": 1,
        run / "vae" / "latents.json": 1,
    }


def test_a_run_opens_from_a_text_a_path_or_itself(run):
    opened = Run.open(str(run))
    assert Run.open(opened) is opened and Run.open(run).record == opened.record
    assert (str(opened), opened.stage, opened.step) == (str(run), "dit", 1)
    assert opened.vae_run().stage == "vae" and opened.vae_run().vae_run().path == run / "vae"


def test_parameters_are_those_of_the_newest_checkpoint(run, tmp_path):
    opened = Run.open(run)
    opened.copy(tmp_path / "copy")
    save_model(tmp_path / "copy", 7, jax.tree.map(lambda x: np.full(x.shape, 7.0, x.dtype), _params(opened)))
    copy = Run.open(tmp_path / "copy")
    assert copy.step == 7 and all(np.unique(x) == [7.0] for x in jax.tree.leaves(_params(copy)))


def _params(run: Run):
    return run.sharded_params(make_mesh(MeshConfig(), jax.local_devices()[:1]))


def test_a_copy_holds_what_using_the_run_needs_and_is_made_once(run, tmp_path):
    vae = Run.open(run).vae_run()
    vae.copy(tmp_path / "vae")
    expected, copied = vae.vae(), Run.open(tmp_path / "vae").vae()
    assert copied.stats == expected.stats
    jax.tree.map(np.testing.assert_array_equal, copied.params, expected.params)
    Run.open(run).copy(tmp_path / "vae")
    assert Run.open(tmp_path / "vae").stage == "vae"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, Sampling(40, 5.0)),
        ({"config": {"sampling_steps": 4}}, Sampling(4, 1.0)),
        ({"config": {"sampling_steps": 4}, "sampling": {"steps": 2, "guidance": 3.0}}, Sampling(2, 3.0)),
        ({"sampling": {"frame_rate": 25.0}}, Sampling(frame_rate=25.0)),
    ],
)
def test_a_run_says_how_it_is_sampled(tmp_path, record, expected):
    config = {"text_encoder": "minilm"} | record.get("config", {})
    write_record(tmp_path / "run", **record | {"config": config})
    assert Run.open(tmp_path / "run").denoiser.sampling == expected


def test_what_is_not_asked_for_is_the_runs_own(run):
    generator = Generator.load(run)
    config = generator.sample_config()
    assert (config.steps, config.guidance, config.solver) == (40, 5.0, "euler")
    assert config.shift == generator.times["shift"]
    changed = generator.sample_config(steps=4, guidance=None, shift=3.0)
    assert (changed.steps, changed.guidance, changed.shift) == (4, 5.0, 3.0)


@pytest.mark.parametrize("text", ["[]", "3", '{"stage": "dit"}', '{"stage": "dit", "config": []}'])
def test_a_record_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run.json is no record of a training run"):
        Run.open(tmp_path)


def test_a_run_without_a_denoiser_is_refused(run):
    with pytest.raises(UserError, match="is a run of stage 'vae', which holds no transformer"):
        _ = Run.open(run / "vae").denoiser
    with pytest.raises(UserError, match="is a run of stage 'dit', not 'vae'"):
        Run.open(run, "vae")
    with pytest.raises(UserError, match="does not exist: name the folder of a training run"):
        Run.open(run / "nothing")


def test_what_a_run_names_is_found_where_both_have_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "before" / "dit").mkdir(parents=True)
    names = {"pruned": str(tmp_path / "before" / "dit"), "recovered": "before/dit"}
    for run, teacher in names.items():
        write_run(tmp_path / "before" / run, "recover", {"teacher": teacher}, {})
    assert all(Path(Run.open(f"before/{run}").find(name)).samefile("before/dit") for run, name in names.items())
    (tmp_path / "elsewhere").mkdir()
    shutil.move("before", "elsewhere/after")
    monkeypatch.chdir("/")
    for run, teacher in names.items():
        assert Run.open(tmp_path / "elsewhere/after" / run).find(teacher) == str(tmp_path / "elsewhere/after/dit")
    assert Run.open(tmp_path / "elsewhere/after/pruned").find("/gone") == "/gone"
