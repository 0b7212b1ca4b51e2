"""A step compiled in one process and used by another, and programs that later starts take from a folder."""

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.compiled_step import StoredStep, lower_step, store_step
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.state import TrainState
from tests import tiny
from tests.commands import call

MODEL = DitConfig(width=64, depth=1, heads=2, head_dim=32, ffn=64, time_features=32)


def stage(data: Path, **changes) -> DitStage:
    mesh = MeshConfig(fsdp=2)
    return DitStage(tiny.dit_config(data, model=MODEL, mesh=mesh, steps=3, eval_every=0, **changes))


def compile_and_store(data: Path, path: Path) -> None:
    dit_stage = stage(data)
    mesh = make_mesh(dit_stage.config.mesh)
    lowered, _ = lower_step(dit_stage, mesh)
    store_step(lowered.compile(), dit_stage, mesh, path)


def train_and_tell(data: Path, run: Path, cache: Path, executable: Path | None) -> None:
    """Trains, and writes which programs were compiled and how many came from the cache."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compiled, hits = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **details: compiled.append(details.get("fun_name")) if "backend_compile" in event else None
    )
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event) if event == "/jax/compilation_cache/cache_hits" else None
    )
    train(stage(data), run, executable)
    (run / "compiled.json").write_text(json.dumps({"compiled": compiled, "hits": len(hits)}))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="module")
def stored(data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "step"
    done = call(compile_and_store, data, path, devices=2)
    assert done.status == 0, done.err
    return path


@pytest.mark.slow
def test_another_process_trains_with_it_to_the_bit_and_compiles_no_step(data, stored, tmp_path):
    reports = {}
    for name, executable in (("plain", None), ("stored", stored)):
        done = call(train_and_tell, data, tmp_path / name, tmp_path / "cache", executable, devices=2)
        assert done.status == 0, done.err
        reports[name] = json.loads((tmp_path / name / "compiled.json").read_text())
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in reports]
    assert losses[0] == losses[1] and len(set(losses[0])) == 3
    assert "jit(step)" in reports["plain"]["compiled"] and "jit(step)" not in reports["stored"]["compiled"]
    assert "jit(create)" in reports["stored"]["compiled"] and reports["plain"]["hits"] == 0 < reports["stored"]["hits"]


def test_batches_of_other_shapes_take_the_step_that_is_compiled_as_it_comes(monkeypatch):
    loaded, compiled = (lambda state, batch, loss=loss: (state, {"loss": jnp.float32(loss)}) for loss in (1, 2))
    monkeypatch.setattr(serialize_executable, "deserialize_and_load", lambda *_, **__: loaded)
    state, shapes = TrainState({}, {}, {}, {}), {"latents": jax.ShapeDtypeStruct((2, 3), np.float32)}
    step = StoredStep(b"", ("loss",), shapes, make_mesh(MeshConfig())).load(state, compiled)
    same, longer = np.zeros((2, 3)), np.zeros((2, 4))
    batches = {"latents": same}, {"latents": longer}, {"latents": same, "latent_mask": same}
    assert [int(step(state, batch)[1]["loss"]) for batch in batches] == [1, 2, 2]


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def file_of(payload: bytes, **origin) -> bytes:
    return json.dumps({"sha256": hashlib.sha256(payload).hexdigest(), **origin}).encode() + b"\n" + payload


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing: make it with launch.compile --store"),
        (b"no JSON", "is no compiled step"),
        (file_of(b"whole")[:-1], "its end is missing"),
        (file_of(pickle.dumps(Harmful())), r"asks for builtins\.print"),
        (file_of(pickle.dumps(1), **{"config.stage": "vae"}), r"compiled for config\.\w+(\.\w+)?=None"),
    ],
)
def test_a_file_that_is_no_step_of_this_run_is_refused_in_one_line(data, tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "step").write_bytes(content)
    with pytest.raises(UserError, match=message):
        StoredStep.read(tmp_path / "step", stage(data), make_mesh(MeshConfig()))
    assert not capsys.readouterr().out


def test_a_run_on_other_devices_is_refused_before_anything_is_written(data, stored, tmp_path):
    one = DitStage(dataclasses.replace(stage(data).config, mesh=MeshConfig()))
    with pytest.raises(UserError, match=r"compiled for mesh\.fsdp=2, this run has 1: compile it again"):
        train(one, tmp_path / "run", stored)
    assert not (tmp_path / "run").exists()
