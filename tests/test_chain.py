"""From videos to samples through every stage, at the smallest size."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request, file_names
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.latents.store import records
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.vae.pixels import to_signed
from tests import tiny
from tests.data.videos import greys, write_captions, write_video
from tests.events import shown

pytestmark = pytest.mark.first

SIZES = {"train": 40, "validation": 8, "test": 6}
CLIP = ClipShape.parse(tiny.CLIP)
DRAW = SampleConfig(steps=2, guidance=2.0)


def encode(vae: Path, videos: Path, out: Path, **changes) -> dict:
    options = {"text_encoder": "minilm", "batch_size": 4, "shard_records": 16, **changes}
    return encode_dataset(vae, videos, out, EncodeOptions(**options))


def real_videos(folder: Path) -> Path:
    """Videos of 4:3, 16:9 and 2.35:1, too small to take long."""
    folder.mkdir()
    names = [f"{i}.mp4" for i in range(9)]
    for name, (height, width) in zip(names, [(48, 64), (36, 64), (34, 80)] * 3, strict=True):
        write_video(folder / name, greys(12, height, width))
    write_captions(folder, *names)
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """Every stage's output, in one folder."""
    root = tmp_path_factory.mktemp("chain")
    prepare("moving_shapes", root / "videos", world=World(counts=(1,)), clip=CLIP, sizes=SIZES)
    prepare(str(real_videos(root / "sources")), root / "real", validation=0.3, test=0.3, min_frames=9)
    mixed = tiny.vae_config(
        root / "videos", mix_data=str(root / "real"), mix_share=0.25, sample_every=20, sample_clips=2
    )
    train(VaeStage(mixed), root / "vae")
    encode(root / "vae", root / "videos", root / "latents")
    train(DitStage(tiny.dit_config(root / "latents", text_tokens=16, sample_every=8, sample_clips=2)), root / "dit")
    return root


def test_the_vae_learns_and_measures_its_latents(chain):
    lines = read_metrics(chain / "vae")
    assert lines[-1]["eval_psnr"] > lines[9]["eval_psnr"]
    latents = np.concatenate([record["latents"].reshape(-1, 6) for record in records(chain / "latents", "train")])
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=0.5)
    np.testing.assert_allclose(latents.std(axis=0), 1, atol=0.5)


def test_every_clip_is_encoded_once_with_its_caption_trimmed(chain):
    for split, size in SIZES.items():
        rows = list(records(chain / "latents", split))
        assert len({row["id"] for row in rows}) == len(rows) == size
    assert all(row["attributes"]["colour"] in row["caption"] for row in rows)
    assert len({row["text_states"].shape[0] for row in rows}) > 1
    assert all(row["latents"].shape == (3, 4, 4, 6) for row in rows)


def test_latents_are_those_of_the_vae(chain):
    bundle = Run.open(chain / "vae").vae()
    clip = next(iter(captioned_clips(ClipSource.open(chain / "videos"), "test", CLIP)))
    video = to_signed(jnp.asarray(clip["video"][None]))
    expected = bundle.encode(bundle.params, video)[0]
    np.testing.assert_allclose(next(records(chain / "latents", "test"))["latents"], expected, atol=2e-2)


def test_encoding_goes_on_where_it_stopped(chain, tmp_path):
    out = tmp_path / "latents"
    shutil.copytree(chain / "latents", out)
    (out / "manifest.json").unlink()
    lost = out / "train-9x32x32-00001-of-00003.array_record"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    content = lost.read_bytes()
    lost.unlink()
    encode(chain / "vae", chain / "videos", out)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert {name for name in before if before[name] != after[name]} == {lost.name}
    assert lost.read_bytes() == content and (out / "manifest.json").exists()


def test_videos_of_many_sizes_are_encoded_into_buckets(chain, tmp_path):
    encode(
        chain / "vae",
        chain / "real",
        tmp_path / "latents",
        clips=(
            "9x32x32",
            "5x32x64",
        ),
        shard_records=3,
    )
    shapes = [row["latents"].shape for split in SIZES for row in records(tmp_path / "latents", split)]
    assert set(shapes) == {(3, 4, 4, 6), (2, 4, 8, 6)}
    source = ClipSource.open(chain / "real")
    assert len(shapes) == sum(1 for split in SIZES for _ in captioned_clips(source, split, CLIP))
    with pytest.raises(UserError, match="no video falls into bucket 641x32x32"):
        encode(
            chain / "vae",
            chain / "real",
            tmp_path / "none",
            clips=(
                "9x32x32",
                "641x32x32",
            ),
        )
    assert not (tmp_path / "none").exists()


def test_long_captions_are_cut_at_encoding_and_refused_before_training(chain, tmp_path):
    longest = max(len(row["text_states"]) for row in records(chain / "latents", "train"))
    with pytest.raises(UserError, match=f"text_tokens={longest}, the config has 4: set --config.text_tokens={longest}"):
        DitStage(tiny.dit_config(chain / "latents", text_tokens=4)).train_batches(make_mesh(MeshConfig()))
    with pytest.warns(UserWarning, match="longer than the 5 tokens of minilm and were cut; the first now ends at"):
        encode(chain / "vae", chain / "videos", tmp_path / "short", text_tokens=5)
    assert all(len(row["text_states"]) == 5 for row in records(tmp_path / "short", "train"))
    DitStage(tiny.dit_config(tmp_path / "short", text_tokens=5)).train_batches(make_mesh(MeshConfig()))
    with pytest.raises(UserError, match="minilm takes 3 to 256 tokens of a caption, not 300"):
        encode(chain / "vae", chain / "videos", tmp_path / "none", text_tokens=300)


def test_tensorboard_shows_reconstructions_and_generated_clips_that_move(chain):
    reconstructions, generated = shown(chain / "vae"), shown(chain / "dit")
    assert set(reconstructions) == {"samples/reconstruction-0", "samples/reconstruction-1"}
    assert {(clip.n_frames, clip.size) for clip in reconstructions.values()} == {(9, (64, 32))}
    assert len(generated) == 2 and {(clip.n_frames, clip.size) for clip in generated.values()} == {(9, (32, 32))}


def test_training_leaves_samples_of_the_first_held_out_captions(chain):
    captions = [row["caption"] for row, _ in zip(records(chain / "latents", "validation"), range(2), strict=False)]
    names = [f"{name}.mp4" for name in file_names([Request(text, i) for i, text in enumerate(captions)])]
    for step in ("8", "12"):
        assert sorted(path.name for path in (chain / "dit" / "samples" / step).iterdir()) == names
    info = probe(chain / "dit" / "samples" / "12" / names[0])
    assert ClipShape(info.frames, info.height, info.width) == CLIP
    lines = {line["step"]: line for line in read_metrics(chain / "dit")}
    assert [step for step, line in lines.items() if "sample_accuracy_all" in line] == [8, 12]
    assert lines[8]["sample_motion_energy"] != lines[12]["sample_motion_energy"]
    with pytest.raises(UserError, match="sample_clips=0: use a whole number from 1"):
        tiny.dit_config(chain / "latents", sample_clips=0)


def test_encoding_into_another_data_set_is_refused(chain, tmp_path):
    with pytest.raises(UserError, match="was made with another"):
        encode(chain / "vae", chain / "videos", chain / "latents", shard_records=32)
    with pytest.raises(UserError, match="config asks for 17x32x32"):
        encode(chain / "vae", chain / "videos", tmp_path / "new", clips=("17x32x32",))
    assert not (tmp_path / "new").exists()
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        encode(chain / "vae", chain / "videos", tmp_path)


def _renamed(run: Path, out: Path, **config) -> Path:
    """A copy of a run whose config says something else."""
    shutil.copytree(run, out)
    record = json.loads((out / "run.json").read_text())
    record["config"] |= config
    (out / "run.json").write_text(json.dumps(record))
    return out


def test_a_sample_depends_on_its_prompt_and_seed_alone(chain, tmp_path):
    generator = Generator.load(chain / "dit")
    prompts = ["a red circle moving left", "a blue square moving up", "one green cross staying still"]
    clips = generator.generate(prompts, config=DRAW, batch_size=2).frames
    assert clips.shape == (3, 9, 32, 32, 3) and clips.dtype == np.uint8
    streamed = generator.generate(prompts, config=DRAW, chunk=1, batch_size=2).frames
    assert np.abs(streamed.astype(int) - clips).max() <= 1
    negated = generator.generate(prompts, config=DRAW, negative_prompt="a red square").frames
    assert np.abs(negated.astype(int) - clips).max() > 1
    with pytest.raises(UserError, match="was trained with text encoder"):
        Generator.load(_renamed(chain / "dit", tmp_path / "other", text_encoder="t5-00000000"), text_encoder="minilm")
    alone = generator.generate(prompts[2:], seed=2, config=DRAW).frames
    assert np.abs(clips[2].astype(int) - alone[0]).max() <= 1
    assert np.abs(generator.generate(prompts[0], seed=5, config=DRAW).frames[0].astype(int) - clips[0]).max() > 1


def test_a_run_can_be_moved_and_still_samples(chain, tmp_path):
    shutil.copytree(chain / "dit", tmp_path / "moved")
    assert len(Generator.load(tmp_path / "moved").generate("a red circle", config=DRAW)) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "does not exist"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "holds no checkpoint"),
        (lambda run: (run / "run.json").write_text("{"), "is damaged"),
        (lambda run: (run / "vae" / "latents.json").unlink(), "no latent statistics"),
        (lambda run: [p.write_bytes(b"x") for p in (run / "checkpoints").rglob("*") if p.is_file()], "is damaged"),
    ],
)
def test_a_run_that_cannot_be_used_is_refused(chain, tmp_path, damage, message):
    shutil.copytree(chain / "dit", tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        Generator.load(tmp_path / "run")


def test_a_vae_is_no_transformer(chain):
    with pytest.raises(UserError, match="is a run of stage 'vae', which holds no transformer"):
        Generator.load(chain / "vae")


def test_the_latents_remember_where_they_come_from(chain):
    manifest = json.loads((chain / "latents" / "manifest.json").read_text())
    assert manifest["source"]["accepted"] == sum(SIZES.values())
    assert manifest["vae"]["description"]["compression"] == tiny.COMPRESSION
