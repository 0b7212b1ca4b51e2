"""Encoding shared by real processes: one is killed, the job starts again, and each shard is written once."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.latents import encode
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.latents.store import read_manifest, records
from tests import tiny
from tests.train.jobs import finish_job, start_job

SIZES = {"train": 14, "validation": 2, "test": 0}
OPTIONS = {"text_encoder": "minilm", "batch_size": 2, "shard_records": 2}
SHARDS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A VAE, videos, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("encode")
    world = World(counts=(1,), colours=("red", "blue"), shapes=("circle", "square"), backgrounds=("dark",))
    prepare("moving_shapes", folder / "videos", world=world, clip=tiny.ClipShape.parse(tiny.CLIP), sizes=SIZES)
    tiny.vae_run(folder / "vae")
    encode_dataset(folder / "vae", folder / "videos", folder / "alone", EncodeOptions(**OPTIONS))
    return folder


def start(root: Path, out: Path, **changes):
    options = {**OPTIONS, "vae": root / "vae", "data": root / "videos", "out": out, **changes}
    return start_job(["launch.encode", *(f"--{name}={value}" for name, value in options.items())], processes=2)


def finished(out: Path) -> dict[str, int]:
    """The shards that are whole, with the times they were written."""
    return {
        path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record") if path.with_suffix(".json").exists()
    }


@pytest.mark.slow
def test_a_killed_job_starts_again_and_keeps_its_shards(root, tmp_path):
    out = tmp_path / "latents"
    job = start(root, out)
    while not finished(out):
        assert job[1].process.is_alive()
        time.sleep(0.002)
    job[1].signal(signal.SIGKILL)
    other, killed = finish_job(job)
    assert killed.status == -signal.SIGKILL and other.status not in (0, None)
    assert not (out / "manifest.json").exists()
    before = finished(out)
    assert 0 < len(before) < SHARDS
    with pytest.raises(UserError, match="is no finished encoded data set"):
        read_manifest(out)
    (out / ".train.array_record.12.partial").write_text("half a shard")

    ended = finish_job(start(root, out))
    assert [done.status for done in ended] == [0, 0], ended
    assert [done.out.strip().endswith("}") for done in ended] == [True, False]  # the first process alone speaks
    wrote = [{line.split()[2] for line in done.err.splitlines() if line.startswith("encode: ")} for done in ended]
    assert not wrote[0] & wrote[1] and wrote[0] | wrote[1] == finished(out).keys() - before.keys()
    assert len(finished(out)) == SHARDS and before.items() <= finished(out).items()
    assert not list(out.glob(".*"))
    assert read_manifest(out) == read_manifest(root / "alone")
    for split in ("train", "validation"):
        for mine, expected in zip(records(out, split), records(root / "alone", split), strict=True):
            assert mine["id"] == expected["id"]
            np.testing.assert_allclose(mine["latents"], expected["latents"], atol=1e-3)
            np.testing.assert_allclose(mine["text_states"], expected["text_states"], atol=1e-3)


def test_decoding_encoding_and_writing_take_place_at_the_same_time(root, tmp_path, monkeypatch):
    """Each of the three sleeps as long for every shard: one after the other they would take three times as long."""
    seconds, plain_decoded, plain_shards, took = 0.3, encode._decoded, encode._encode_shards, []

    def decoded(*args):
        for batch in plain_decoded(*args):
            time.sleep(seconds)
            yield batch

    def shards(*args):
        started = time.monotonic()
        plain_shards(*args)
        took.append(time.monotonic() - started)

    def encoded(video):
        time.sleep(seconds)
        return np.zeros(len(video))

    monkeypatch.setattr(encode, "_decoded", decoded)
    monkeypatch.setattr(encode, "on_mesh", lambda *_: (encoded, None))
    monkeypatch.setattr(encode, "_write", lambda *_: time.sleep(seconds))
    monkeypatch.setattr(encode, "_encode_shards", shards)
    with pytest.raises(UserError, match="lacks 8 shards"):
        encode_dataset(root / "vae", root / "videos", tmp_path / "out", EncodeOptions(**OPTIONS))
    assert took[0] < 3 * seconds * SHARDS / 1.8


@pytest.mark.slow
def test_shards_of_another_size_are_refused_by_every_process(root):
    for done in finish_job(start(root, root / "alone", shard_records=3)):
        assert (
            done.status == 2 and "was made with another shard_records: name another --out" in done.err.splitlines()[-1]
        )


def test_a_lost_shard_takes_the_manifest_with_it(root, monkeypatch):
    lost = next((root / "alone").glob("train-*.array_record"))
    lost.unlink()
    monkeypatch.setattr(encode, "_encode_shards", lambda *_: None)
    with pytest.raises(UserError, match=f"lacks 1 shards, the first {lost.name}: start the same command again"):
        encode_dataset(root / "vae", root / "videos", root / "alone", EncodeOptions(**OPTIONS))
    assert not (root / "alone" / "manifest.json").exists()
