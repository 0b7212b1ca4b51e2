"""A caption that is mended later costs its own record, not the shards of the others."""

import pytest

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

    def counted(source, split, shape, windows):
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
