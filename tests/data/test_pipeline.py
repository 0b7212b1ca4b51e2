import itertools
import json
import shutil

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data import integrity
from mobile_video_jax.data.clip_loader import Window
from mobile_video_jax.data.dataset import ClipSource, open_split
from mobile_video_jax.data.pipeline import captioned_clips, clip_batches
from mobile_video_jax.data.prepare import sources
from mobile_video_jax.data.prepare.folder_scan import Clip, VideoInfo
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.video.decode import decode
from tests.data.videos import levels, noise, video_folder, write_captions, write_video

CLIP = ClipShape(5, 32, 32)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "shapes"
    prepare("moving_shapes", out, sizes={"train": 13, "validation": 7, "test": 0}, clip=ClipShape(9, 32, 32))
    return out


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    folder = video_folder(root / "videos", 6, frames=20)
    write_video(folder / "noise.mp4", noise(20, 40, 72))
    write_captions(folder, *(path.name for path in sorted(folder.glob("*.mp4"))))
    prepare(str(folder), root / "out", validation=0.0, test=0.0)
    return root / "out"


def take(folder, count, seed=0, **options):
    batches = clip_batches(ClipSource.open(folder), "train", CLIP, 4, seed, train=True, **options)
    return list(itertools.islice(batches, count))


def same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one["record"], other["record"])
        np.testing.assert_array_equal(one["video"], other["video"])


@pytest.mark.parametrize("name", ["shapes", "videos"])
def test_training_order_depends_on_the_seed_alone(name, request):
    folder = request.getfixturevalue(name)
    first = take(folder, 8)
    assert first[0]["video"].shape == (4, 5, 32, 32, 3)
    assert first[0]["video"].dtype == np.uint8
    assert first[0]["record"].dtype == np.int64
    same(first, take(folder, 8, threads=1))
    assert [b["record"].tolist() for b in first] != [b["record"].tolist() for b in take(folder, 8, seed=1)]


def test_every_epoch_holds_each_record_once_in_another_order(shapes):
    records = np.concatenate([batch["record"] for batch in take(shapes, 13)])  # 52 clips: four epochs of 13
    epochs = records.reshape(4, 13)
    assert (np.sort(epochs, axis=1) == np.arange(13)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("name", ["shapes", "videos"])
def test_resumes_exactly(name, request):
    batches = clip_batches(ClipSource.open(request.getfixturevalue(name)), "train", CLIP, 4, 0, train=True)
    whole = list(itertools.islice(batches, 10))
    iterator = iter(batches)
    for _ in range(6):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    resumed = iter(batches)
    resumed.set_state(state)
    same(list(itertools.islice(resumed, 4)), whole[6:])
    same(list(itertools.islice(iterator, 4)), whole[6:])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["shapes", "videos"])
def test_processes_share_the_global_batch(name, train, request):
    folder, split = request.getfixturevalue(name), "train"
    source = ClipSource.open(folder)
    whole = list(itertools.islice(clip_batches(source, split, CLIP, 4, 0, train=train), 5))
    shares = [
        list(
            itertools.islice(clip_batches(source, split, CLIP, 4, 0, train=train, process_index=i, process_count=2), 5)
        )
        for i in range(2)
    ]
    assert len(shares[0]) == len(shares[1]) == len(whole)
    for step, batch in enumerate(whole):
        for process, share in enumerate(shares):
            same([share[step]], [{key: value[2 * process : 2 * process + 2] for key, value in batch.items()}])


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 3, 13), (1.0, 16, 16)])
def test_a_share_of_the_training_crops_has_the_videos_own_resolution(videos, share, least, most):
    source = ClipSource.open(videos)
    number = [record["id"] for record in source.records("train")].index(b"noise.mp4")
    whole = decode(source.records("train")[number]["encoded"], ClipShape(20, 40, 72))
    windows = {bytes(frame[y : y + 32, x : x + 32]) for frame in whole for y in range(9) for x in range(41)}
    batches = take(videos, 28, native=share)  # 16 epochs of 7
    clips = [clip for b in batches for n, clip in zip(b["record"], b["video"], strict=True) if n == number]
    assert len(clips) == 16 and least <= sum(bytes(clip[0]) in windows for clip in clips) <= most


def test_crops_are_drawn_anew_for_every_clip(videos):
    ids = [record["id"] for record in open_split(videos, "train")[0]]
    batches = take(videos, 28)  # 112 clips, 16 epochs of 7
    clips = {number: [] for number in range(7)}
    for batch in batches:
        for number, video in zip(batch["record"], batch["video"], strict=True):
            clips[number].append(video)
    grey = ids.index(b"clip00.mp4")
    starts = {int(abs(levels(20).astype(int) - clip[0].mean()).argmin()) for clip in clips[grey]}
    assert len(starts) > 6
    assert max(starts) <= 15
    for clip in clips[grey]:  # five successive frames
        np.testing.assert_allclose(np.diff(clip.mean(axis=(1, 2, 3))), 8, atol=5)
    rough = clips[ids.index(b"noise.mp4")]
    assert len({clip.tobytes() for clip in rough}) == len(rough) == 16


def test_evaluation_goes_once_in_order_with_centre_crops(shapes):
    batches = list(clip_batches(ClipSource.open(shapes), "validation", CLIP, 3, seed=5, train=False))
    assert [batch["record"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]  # filled up
    assert batches[2]["weight"].tolist() == [1, 0, 0] and all(batch["weight"].all() for batch in batches[:2])
    source, _ = open_split(shapes, "validation")
    np.testing.assert_array_equal(batches[1]["video"][0], source[3]["video"][2:7])


def test_captioned_clips(shapes, videos):
    source, _ = open_split(shapes, "validation")
    clips = list(captioned_clips(ClipSource.open(shapes), "validation", CLIP))
    assert [clip["id"] for clip in clips] == [f"validation-{number:06}" for number in range(7)]
    for clip, record in zip(clips, source, strict=True):
        assert clip["caption"] == record["caption"].decode()
        assert clip["attributes"]["colour"] == record["attributes"]["colour"].decode()
        assert clip["attributes"]["colour"] in clip["caption"]
        np.testing.assert_array_equal(clip["video"], record["video"][2:7])
        json.dumps(clip["attributes"])
    some = list(captioned_clips(ClipSource.open(shapes), "validation", CLIP, [Window(4), Window(5, 1)]))
    assert [clip["id"] for clip in some] == [clip["id"] for clip in clips[4:6]]
    real = next(iter(captioned_clips(ClipSource.open(videos), "train", CLIP)))
    assert real["caption"] == "a video called clip00.mp4"
    assert real["attributes"] == {}
    np.testing.assert_allclose(real["video"].mean(axis=(1, 2, 3)), levels(20)[7:12], atol=3.5)


def test_clips_that_the_data_set_cannot_give(shapes, videos):
    for clip in (ClipShape(17, 32, 32), ClipShape(5, 32, 48), ClipShape(5, 64, 32)):
        with pytest.raises(UserError, match=f"made for 9x32x32, config asks for {clip}: .* --clip={clip}"):
            clip_batches(ClipSource.open(shapes), "train", clip, 4, 0, train=True)
    with pytest.raises(UserError, match=r"videos of 20 frames, config asks for 21x32x32: .* --min_frames=21"):
        clip_batches(ClipSource.open(videos), "train", ClipShape(21, 32, 32), 4, 0, train=True)


def test_batches_that_cannot_be_filled(shapes):
    with pytest.raises(UserError, match="13 clips in train, fewer than batch_size 14"):
        clip_batches(ClipSource.open(shapes), "train", CLIP, 14, 0, train=True)
    with pytest.raises(UserError, match="no clips in test"):
        clip_batches(ClipSource.open(shapes), "test", CLIP, 1, 0, train=False)
    with pytest.raises(UserError, match="batch_size 5 does not divide by 2 processes"):
        clip_batches(ClipSource.open(shapes), "train", CLIP, 5, 0, train=True, process_count=2)


def test_a_video_that_does_not_decode_is_named(tmp_path, monkeypatch):
    folder = video_folder(tmp_path / "videos", 2)
    (folder / "rotten.mp4").write_text("no video")

    def blind_scan(check):
        info = VideoInfo(12, 24, 32, 10.0, 1.2)
        return [Clip(path.name, path, "a", info) for path in sorted(folder.glob("*.mp4"))], []

    monkeypatch.setattr(sources, "scan", blind_scan)
    prepare(str(folder), tmp_path / "out", validation=0.0, test=0.0)
    with pytest.raises(UserError, match=r"record 2 of train in .*out \(rotten.mp4\): it does not decode"):
        list(clip_batches(ClipSource.open(tmp_path / "out"), "train", CLIP, 1, 0, train=False))


def rot(path, first: int, last: int) -> None:
    """Changes bytes of a file and leaves its size."""
    data = bytearray(path.read_bytes())
    data[first:last] = bytes(byte ^ 0xFF for byte in data[first:last])
    path.write_bytes(data)


def test_training_skips_a_record_that_has_changed_and_reports_it(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(integrity, "VERIFIED", 0)  # as in a large set, which is not read at once
    changed = tmp_path / "changed"
    shutil.copytree(shapes, changed)
    (shard,) = changed.rglob("*train.array_record*")
    rot(shard, 2000, 2010)
    batches = take(changed, 13)
    usable = [record for batch in batches for record in batch["record"]]
    assert len(usable) == 52 and len(set(usable)) == 12
    same(batches, take(changed, 13, threads=1))
    assert "skipped 1 so far: record" in capsys.readouterr().err
    rot(shard, 0, shard.stat().st_size - 1000)
    with pytest.raises(UserError, match="usable"):
        take(changed, 13)


def test_a_record_that_rots_on_disk_is_named(shapes, tmp_path):
    rotten = tmp_path / "rotten"
    shutil.copytree(shapes, rotten)
    (shard,) = rotten.rglob("*validation.array_record*")
    rot(shard, 2000, 6000)
    with pytest.raises(UserError, match=r"validation.array_record.* is damaged, its bytes have changed"):
        list(captioned_clips(ClipSource.open(rotten), "validation", CLIP))
