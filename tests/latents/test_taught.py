"""Taught data sets: the teacher's outputs are those of the noisy clips that a student is trained on."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.latents import taught
from mobile_video_jax.latents.store import MANIFEST, read_manifest, records
from mobile_video_jax.latents.taught import TeachOptions, teach
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, put_batch
from mobile_video_jax.stages.config import TaughtTraining
from mobile_video_jax.stages.taught import TaughtStage
from mobile_video_jax.vae.latent_stats import LatentStats
from tests import tiny

MODEL = DitConfig(width=16, depth=1, heads=2, head_dim=8, ffn=16, time_features=8)
OPTIONS = TeachOptions(draws=2, caption_dropout=0.5, batch_size=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.latents(tmp_path_factory.mktemp("data") / "latents")


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory) -> Run:
    config = tiny.dit_config(data, model=MODEL)
    return Run.open(tiny.dit_run(tmp_path_factory.mktemp("teacher") / "dit", config))


@pytest.fixture(scope="module")
def lessons(teacher, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("taught") / "data"
    teach(teacher, data, out, OPTIONS)
    return out


def stage_of(data) -> TaughtStage:
    fields = {field.name: getattr(tiny.dit_config(data, model=MODEL), field.name) for field in _fields()}
    return TaughtStage(TaughtTraining(**fields | {"stage": "taught", "caption_dropout": 0.0}))


def _fields():
    return dataclasses.fields(tiny.DitTraining)


def test_the_teacher_itself_has_no_distance_from_its_stored_outputs_and_another_has(lessons, teacher):
    stage, mesh = stage_of(lessons), make_mesh(MeshConfig())
    batch = next(iter(stage.train_batches(mesh)))
    batch.pop("record")
    assert {key: (x.shape, x.dtype) for key, x in stage.abstract_batch().items()} == {
        key: (x.shape, x.dtype) for key, x in batch.items()
    }
    loss = jax.jit(lambda params: stage.loss(params, put_batch(batch, mesh), jax.random.key(0))[1])
    params = teacher.sharded_params(mesh)
    assert float(loss(params)["teacher_loss"]) < 1e-5  # half precision
    assert float(loss(jax.tree.map(lambda x: 0.9 * x, params))["teacher_loss"]) > 1e-3
    dropped = np.concatenate([record["taught"]["dropped"] for record in records(lessons, "train")])
    assert 0 < dropped.mean() < 1


def test_teaching_resumes_with_the_shards_that_are_missing(lessons, teacher, data, monkeypatch):
    before = {path.name: path.read_bytes() for path in lessons.glob("*.array_record")}
    (lessons / MANIFEST).unlink()
    sorted(lessons.glob("train*.array_record"))[1].unlink()
    calls, real = [], taught.write_shard
    monkeypatch.setattr(taught, "write_shard", lambda path, *rest: (calls.append(path), real(path, *rest)))
    teach(teacher, data, lessons, OPTIONS)
    assert len(calls) == 1 and {path.name: path.read_bytes() for path in lessons.glob("*.array_record")} == before
    with pytest.raises(UserError, match="was made with another options"):
        teach(teacher, data, lessons, dataclasses.replace(OPTIONS, draws=3))


def test_data_without_a_teacher_and_latents_of_another_vae_are_refused(teacher, data, tmp_path):
    assert "taught" not in read_json(data / MANIFEST) and read_manifest(data)["splits"]
    with pytest.raises(UserError, match="holds no teacher's outputs: run python -m launch.teach"):
        _ = stage_of(data).data_folders
    other = tiny.latents(tmp_path / "latents", train=2, validation=2)
    LatentStats((0.2,) * 6, (0.5,) * 6).save(other / "vae")
    with pytest.raises(UserError, match="holds latents of another VAE"):
        teach(teacher, other, tmp_path / "out", OPTIONS)
    untrained = tmp_path / "untrained"
    shutil.copytree(teacher.path, untrained, ignore=lambda *_: ["checkpoints"])
    with pytest.raises(UserError, match="untrained holds no checkpoint"):
        teach(Run.open(untrained), data, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_data_of_other_counts_of_versions_and_dropped_captions_are_refused(lessons, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(lessons, other)
    manifest = read_json(other / MANIFEST)
    write_json(other / MANIFEST, manifest | {"taught": manifest["taught"] | {"draws": 3}})
    with pytest.raises(UserError, match="teach all with one --draws"):
        _ = stage_of(f"{lessons},{other}").data_folders
    with pytest.raises(UserError, match="captions are dropped where data are taught"):
        TaughtStage(TaughtTraining(caption_dropout=0.1))
