"""A caption that is mended later costs its own record, not the shards of the others."""

import json

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.latents import encode
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.latents.store import read_manifest, records
from tests import tiny
from tests.data.videos import video_folder

OPTIONS = EncodeOptions(batch_size=2, shard_records=3)


@pytest.fixture
def encoded_windows(monkeypatch) -> list[int]:
    """Grows by the number of windows of each shard that is encoded."""
    counts, plain = [], encode.captioned_clips

    def counted(source, split, shape, windows, threads=4):
        counts.append(len(windows))
        return plain(source, split, shape, windows)

    monkeypatch.setattr(encode, "captioned_clips", counted)
    return counts


def test_only_the_record_of_a_mended_caption_is_encoded_again(tmp_path, encoded_windows):
    videos, out = video_folder(tmp_path / "videos", 8), tmp_path / "latents"
    tiny.vae_run(tmp_path / "vae")
    prepare(str(videos), tmp_path / "before", validation=0.2, test=0.0)
    encode_dataset(tmp_path / "vae", tmp_path / "before", out, OPTIONS)
    assert sum(encoded_windows) == 8
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    captions = videos / "captions.jsonl"
    captions.write_text(captions.read_text().replace("a video called clip03.mp4", "a mended caption"))
    prepare(str(videos), tmp_path / "after", validation=0.2, test=0.0)
    del encoded_windows[:]
    encode_dataset(tmp_path / "vae", tmp_path / "after", out, OPTIONS)
    assert encoded_windows == [1]
    changed = [path for path in out.glob("*.array_record") if path.stat().st_mtime_ns != written[path.name]]
    assert len(changed) == 1
    texts = [record["caption"] for split in ("train", "validation") for record in records(out, split)]
    assert "a mended caption" in texts and "a video called clip03.mp4" not in texts and len(texts) == 8
    assert read_manifest(out)["source"]["fps"] == 10


def test_a_folder_of_an_older_version_is_kept_while_its_data_set_is_the_same(tmp_path, encoded_windows):
    vae, out = tiny.vae_run(tmp_path / "vae"), tmp_path / "latents"
    prepare(str(video_folder(tmp_path / "videos", 6)), tmp_path / "data", validation=0.2, test=0.0)
    manifest = encode_dataset(vae, tmp_path / "data", out, OPTIONS)
    source = json.loads((tmp_path / "data" / "manifest.json").read_text())
    claim = json.loads((out / "inputs.json").read_text())
    del encoded_windows[:], claim["vae_step"]
    older = claim | {"source": source, "splits": manifest["splits"]}
    (out / "inputs.json").write_text(json.dumps(older))
    encode_dataset(vae, tmp_path / "data", out, OPTIONS)
    assert not encoded_windows
    (out / "inputs.json").write_text(json.dumps(older | {"source": source | {"contents": "others"}}))
    with pytest.raises(UserError, match="by an older version, and the data set has changed since: name another --out"):
        encode_dataset(vae, tmp_path / "data", out, OPTIONS)


def test_latents_of_another_step_of_the_vae_are_refused(tmp_path):
    vae, out = tiny.vae_run(tmp_path / "vae"), tmp_path / "latents"
    prepare(str(video_folder(tmp_path / "videos", 4)), tmp_path / "data", validation=0.2, test=0.0)
    encode_dataset(vae, tmp_path / "data", out, OPTIONS)
    (vae / "checkpoints" / "1").rename(vae / "checkpoints" / "2")
    with pytest.raises(UserError, match="was made with another vae_step: name another --out"):
        encode_dataset(vae, tmp_path / "data", out, OPTIONS)
