"""Runs and data sets in a bucket, on a real server of the object store's interface."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import filling, write_json
from mobile_video_jax.core.storage import copy_folder
from mobile_video_jax.latents.store import read_manifest, read_summary, records
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, replicated
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train import writers
from mobile_video_jax.train.checkpoint import newest_step, restore_model
from mobile_video_jax.train.checkpoints import Checkpoints, restore_state
from mobile_video_jax.train.metrics import MetricsLog, read_metrics
from mobile_video_jax.train.state import TrainState
from mobile_video_jax.train.step_profile import StepProfile
from tests import tiny
from tests.commands import Started, start
from tests.events import events
from tests.object_store import new_folder
from tests.train.test_resume import command, losses, wait_for_step


@pytest.fixture
def folder() -> Path:
    return new_folder()


def upload(source: Path, target: Path) -> None:
    with filling(target) as local:
        shutil.copytree(source, local, dirs_exist_ok=True)


def test_checkpoints_are_kept_restored_and_counted_only_when_whole(folder):
    value = {"w": jnp.arange(4.0)}
    saved = [TrainState(step=jnp.array(i), params=value, ema={"w": value["w"] + i}, opt_state=value) for i in (1, 2)]
    checkpoints = Checkpoints(folder, keep=1)
    for state in saved:
        checkpoints.save(state, {"next_index": int(state.step)})
    checkpoints.close()
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"2"}
    here = replicated(make_mesh(MeshConfig()))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved[-1])
    state, position = restore_state(folder, shapes, jax.tree.map(lambda _: here, shapes))
    assert position == {"next_index": 2} and int(state.step) == 2
    np.testing.assert_array_equal(restore_model(folder, shapes.ema)["w"], state.ema["w"])
    # What a kill within a save leaves: some of the objects, and not the one that comes last.
    (folder / "checkpoints" / "2" / "model" / "commit_success.txt").unlink()
    assert newest_step(folder) is None


def test_event_files_are_there_before_the_log_is_closed(folder, monkeypatch):
    monkeypatch.setattr(writers, "UPLOAD_SECONDS", 0.0)
    log = MetricsLog(folder, resumed_step=0)
    for step in range(1, 100):
        log.write(step, {"loss": step / 4})
        time.sleep(0.02)  # of the thread that writes the local file
        if values := [value.simple_value for value in events(folder)]:
            break
    assert values == [each / 4 for each in range(1, len(values) + 1)] and len(values) < step
    log.close()


def test_a_resumed_log_drops_the_lines_past_its_step(folder):
    for resumed, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = MetricsLog(folder, resumed_step=resumed)
        for step in steps:
            log.write(step, {"loss": step + resumed / 10})
        log.close()
    assert [line["loss"] for line in read_metrics(folder)] == [1.0, 2.0, 3.2, 4.2]
    assert log.last["step"] == 2 and len(list((folder / "tensorboard").iterdir())) >= 1


# How large a trace is depends on what the process has run; aiohttp warns of a body of over a megabyte.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_trace_reaches_the_bucket(folder):
    profile = StepProfile("2-2", folder / "profile")
    for step in (1, 2, 3):
        profile.before(step)
        profile.after(step, jnp.ones(2) + step)
    assert (folder / "profile" / "plugins" / "profile").is_dir()


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    return tiny.vae_run(tmp_path_factory.mktemp("vae") / "run")


def test_a_model_goes_to_a_bucket_and_back(folder, vae, tmp_path):
    Run.open(vae).copy(folder / "vae")
    Run.open(folder / "vae").copy(tmp_path / "vae")
    expected = Run.open(vae).vae()
    for run in (folder / "vae", tmp_path / "vae"):
        bundle = Run.open(run).vae()
        assert Run.open(run, "vae").record == Run.open(vae).record and bundle.stats == expected.stats
        jax.tree.map(np.testing.assert_array_equal, bundle.params, expected.params)


def test_a_shard_in_a_bucket_has_its_summary(folder):
    (folder / "shard.array_record").write_bytes(b"12345")
    write_json(folder / "shard.json", {"text_tokens": 3, "bytes": 5, "sha256": "0"})
    assert read_summary(folder / "shard.array_record") == {"text_tokens": 3, "bytes": 5, "sha256": "0"}
    (folder / "shard.array_record").write_bytes(b"1234")
    assert read_summary(folder / "shard.array_record") is None


def test_the_last_byte_of_a_file_comes_back(folder, tmp_path):
    files = {str(last): bytes([1, last]) for last in b"\0\n\r-\xff"}
    for name, content in files.items():
        (tmp_path / "files" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
    upload(tmp_path / "files", folder)
    copy_folder(folder, tmp_path / "back")
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == files


def test_records_are_read_in_the_bucket_and_nothing_is_copied(folder, tmp_path):
    local = tiny.latents(tmp_path / "latents")
    upload(local, folder / "latents")
    stages = [DitStage(tiny.dit_config(str(place))) for place in (local, folder / "latents")]
    ours, theirs = (next(iter(stage.train_batches(make_mesh(MeshConfig())))) for stage in stages)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    (folder / "latents" / "manifest.json").unlink()
    with pytest.raises(UserError, match=f"{folder}/latents is no finished encoded data set"):
        read_manifest(folder / "latents")


def begin(*arguments: str) -> Started:
    return start(*arguments, devices=1, environment=dict(os.environ))


def launch(*arguments: str) -> dict:
    status, out, err = begin(*arguments).finish()
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_a_run_in_a_bucket_is_killed_and_goes_on_with_the_losses_of_a_local_one(folder, tmp_path):
    data = tiny.latents(tmp_path / "latents")
    launch(*command(data, tmp_path / "run"))
    upload(data, folder / "latents")
    arguments = command(folder / "latents", folder / "run", sample_every=6, sample_clips=1, profile="2-2")
    process = begin(*arguments)
    wait_for_step(process, folder / "run", 6)
    process.signal(signal.SIGKILL)
    process.finish()
    assert len(losses(folder / "run")) < 12
    summary = launch(*arguments)
    assert losses(folder / "run") == losses(tmp_path / "run") and summary["workdir"] == f"{folder}/run"
    assert newest_step(folder / "run") == 12 and Run.open(folder / "run" / "vae", "vae")
    assert [path.suffix for path in (folder / "run" / "samples" / "12").iterdir()] == [".mp4"]
    # A run that starts from it, and clips that it draws.
    launch(*command(folder / "latents", folder / "next", steps=2, init_from=folder / "run"))
    launch("launch.sample", f"--model={folder}/run", "--prompt=a clip", "--steps=2", f"--out={folder}/drawn")
    assert (folder / "drawn" / "samples.json").exists()


@pytest.mark.slow
def test_a_data_set_is_prepared_and_encoded_in_a_bucket(folder, vae, tmp_path):
    Run.open(vae).copy(folder / "vae")
    for place, run in ((tmp_path, vae), (folder, folder / "vae")):
        prepare = ("launch.prepare_data", "--source=moving_shapes", f"--clip={tiny.CLIP}", f"--out={place}/videos")
        launch(*prepare, "--train=10", "--validation=8", "--test=2")
        encode = ("launch.encode", f"--vae={run}", f"--data={place}/videos", f"--out={place}/latents")
        assert launch(*encode, "--batch_size=4", "--shard_records=6")["out"] == f"{place}/latents"
    copy_folder(folder / "latents", tmp_path / "copy")
    for split in ("train", "validation", "test"):
        pairs = zip(records(tmp_path / "copy", split), records(tmp_path / "latents", split), strict=True)
        assert all(np.array_equal(ours["latents"], theirs["latents"]) for ours, theirs in pairs)
    launch(*command(folder / "latents", folder / "run", steps=2, text_tokens=16))


@pytest.mark.slow
def test_a_bucket_that_is_not_there_ends_in_one_line():
    new_folder()  # starts the server
    status, _, err = begin("launch.train", "--config=configs/dit.py:tiny", "--workdir=gs://nowhere/run").finish()
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and line.startswith("error: gs://nowhere cannot be read") and "Traceback" not in err
