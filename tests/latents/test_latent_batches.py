"""Batches of clips of many shapes: what each holds, how often each comes, in which order."""

import collections
import itertools
import json

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.latents.batches import Mix, latent_batches
from tests import tiny

SHAPES = ("1x32x32", "9x32x32", "9x32x64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.latents(tmp_path_factory.mktemp("latents"), train=16, validation=8, clips=SHAPES)


def token_batch(clip: ClipShape) -> int:
    """192 tokens: 12 images, 4 clips of 9x32x32, 2 of 9x32x64."""
    return 192 // ((clip.frames - 1) // 4 + 1) // (clip.height * clip.width // 64)


def batches(folder, split="train", mix=None, train=True, **options):
    options = {"text_tokens": 12, "seed": 0, "threads": 2, **options}
    return iter(latent_batches([folder], split, mix or Mix(token_batch), train=train, **options))


def some(folder, count, **options):
    return list(itertools.islice(batches(folder, **options), count))


def test_a_batch_holds_one_shape_and_as_many_clips_as_its_tokens_allow(folder):
    shapes = {batch["latents"].shape for batch in some(folder, 30)}
    assert shapes == {(12, 1, 4, 4, 6), (4, 3, 4, 4, 6), (2, 3, 4, 8, 6)}


def test_buckets_take_turns_by_their_number_of_batches(folder):
    counts = collections.Counter(batch["latents"].shape[0] for batch in some(folder, 160))
    # 16 records each make 16/12, 4 and 8 batches.
    assert [counts[size] / 160 for size in (12, 4, 2)] == pytest.approx([0.1, 0.3, 0.6], abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_images_have_the_share_asked_for(folder, share):
    counts = collections.Counter(b["latents"].shape[1] for b in some(folder, 100, mix=Mix(token_batch, share)))
    assert counts[1] == pytest.approx(100 * share, abs=1)


def test_an_epoch_holds_every_record_once_and_epochs_differ(folder):
    rows = [batch["record"].tolist() for batch in some(folder, 120) if batch["latents"].shape[0] == 4]
    first, second = np.concatenate(rows[:4]), np.concatenate(rows[4:8])
    assert sorted(first) == sorted(second) == list(range(16, 32)) and list(first) != list(second)


def test_the_order_is_that_of_the_seed_and_goes_on_exactly(folder):
    records = lambda several: [batch["record"].tolist() for batch in several]
    expected = records(some(folder, 12))
    assert expected == records(some(folder, 12)) != records(some(folder, 12, seed=1))
    iterator = batches(folder)
    for _ in range(5):
        next(iterator)
    resumed = batches(folder)
    resumed.set_state(iterator.get_state())
    assert records(itertools.islice(resumed, 7)) == expected[5:]


def test_processes_share_every_batch(folder):
    whole = some(folder, 9)
    parts = [some(folder, 9, process_index=i, process_count=2) for i in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch["record"], np.concatenate([half["record"] for half in halves]))
        assert len({half["latents"].shape for half in halves}) == 1


def test_short_clips_may_be_padded_to_the_longest_of_their_size(folder):
    mix = Mix(token_batch, pad_durations=True)
    padded = some(folder, 40, mix=mix)
    assert {batch["latents"].shape[1:4] for batch in padded} == {(3, 4, 4), (3, 4, 8)}
    mixed = next(batch for batch in padded if not batch["latent_mask"].all())
    frames = mixed["latent_mask"].sum(axis=(1, 2, 3)) // 16
    assert set(frames) <= {1, 3} and mixed["latent_mask"][:, 0].all()
    assert not mixed["latents"][~mixed["latent_mask"]].any() and mixed["latents"][mixed["latent_mask"]].all()


def test_evaluation_takes_every_full_batch_once(folder):
    mix = Mix(lambda clip: 4)
    full = list(batches(folder, "validation", mix=mix, train=False))
    assert sorted(np.concatenate([batch["record"] for batch in full])) == list(range(24))
    assert [batch["latents"].shape[1:3] for batch in full[:2]] != [full[0]["latents"].shape[1:3]] * 2


def test_a_bucket_that_fills_no_batch_is_an_error(folder):
    with pytest.raises(UserError, match="hold 16 train records of 9x32x64, fewer than one batch of 17"):
        batches(folder, mix=Mix(lambda clip: 17 if clip.width == 64 else 2))


def test_a_manifest_of_another_version_is_an_error(folder, tmp_path):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["text_tokens"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="says nothing of text_tokens: encode the data set again"):
        batches(tmp_path)
