"""Generated clips as an encoded data set with labels."""

import dataclasses
import json

import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.latents.store import records
from mobile_video_jax.models.run import Run
from mobile_video_jax.rewards.labelled_clips import LabelJob, label_clips, own_prompts, world_prompts
from mobile_video_jax.rewards.labels import Labels
from tests import tiny

WORLD = World(counts=(1,), colours=("red", "green"), shapes=("square", "circle"), motions=("left", "still"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Generator:
    folder = tmp_path_factory.mktemp("model")
    model = dataclasses.replace(tiny.DIT, width=32, heads=2, head_dim=16, ffn=32)
    return Generator.load(tiny.dit_run(folder / "dit", tiny.dit_config(folder, model=model)))


def test_the_detector_labels_clips_of_its_world_and_a_stopped_job_resumes(generator, tmp_path):
    prompts = world_prompts(WORLD, {"train": 3, "validation": 2})
    job = LabelJob(prompts, generator.sample_config(steps=2), tmp_path / "out", WORLD)
    shares = label_clips(generator, job, batch_size=4)
    assert shares.keys() == {"train", "validation"}
    rows = list(records(tmp_path / "out", "train"))
    assert [row["caption"] for row in rows] == [text for text, _ in prompts["train"]]
    assert rows[0]["latents"].shape == generator.denoiser.latent_shape_of(ClipShape.parse(tiny.CLIP))
    labels = Labels.read(tmp_path / "out" / "labels.jsonl")
    assert sum(float(labels(row)["label"]) for row in rows) / 3 == pytest.approx(shares["train"])
    assert Run.open(tmp_path / "out" / "vae", "vae")

    first = tmp_path / "out" / f"train-{tiny.CLIP}-00000-of-00001.array_record"
    written = first.stat().st_mtime_ns
    assert label_clips(generator, job, batch_size=4) == shares and first.stat().st_mtime_ns == written
    with pytest.raises(UserError, match="made with another attribute"):
        label_clips(generator, dataclasses.replace(job, attribute="colour"), batch_size=4)


def test_clips_of_other_prompts_are_left_for_a_person(generator, tmp_path):
    job = LabelJob(own_prompts(["a cat", "a dog"], 1), generator.sample_config(steps=2), tmp_path / "out")
    assert label_clips(generator, job, batch_size=4) == {}
    assert sorted(path.name for path in (tmp_path / "out" / "clips").iterdir()) == ["train-0.mp4", "validation-0.mp4"]
    (tmp_path / "out" / "labels.jsonl").write_text(json.dumps({"id": "train-0", "label": 1}) + "\n")
    assert Labels.read(tmp_path / "out" / "labels.jsonl")(next(records(tmp_path / "out", "train")))["label"] == 1
    with pytest.raises(UserError, match="too few to hold 2 out"):
        own_prompts(["a cat", "a dog"], 2)
