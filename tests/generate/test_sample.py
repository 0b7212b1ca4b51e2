"""Drawing clips: devices, sizes, first frames, and folders that go on where they stopped."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.folder import GenerationJob, generate_folder
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request, picture
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.vae.pixels import to_signed
from tests import tiny
from tests.commands import call
from tests.data.videos import image_bytes

DRAW = SampleConfig(steps=3, guidance=3.0, guidance_rescale=0.5)
PROMPTS = ["a red circle moving left", "a blue square", "one green cross staying still", "two circles", "a ring"]


def image(path: Path, seed: int = 0) -> Path:
    """A picture of smooth colours, wider than it is high."""
    coarse = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), np.uint8)
    path.write_bytes(image_bytes(coarse.repeat(32, axis=0).repeat(32, axis=1), ".png"))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A finished transformer run with random weights, which was trained on given first frames."""
    config = tiny.dit_config(Path("nowhere"), text_tokens=16, image_probability=0.3)
    return tiny.dit_run(tmp_path_factory.mktemp("model") / "dit", config)


def renamed(run: Path, out: Path, **config) -> Path:
    """A copy of a run whose config says something else."""
    shutil.copytree(run, out)
    record = json.loads((out / "run.json").read_text())
    record["config"] |= config
    (out / "run.json").write_text(json.dumps(record))
    return out


@pytest.fixture(scope="module")
def generator(model) -> Generator:
    return Generator.load(model)


def test_guidance_by_a_path_is_for_models_that_were_trained_with_it(generator):
    with pytest.raises(UserError, match="not trained for path_drop: leave it out, or train with"):
        generator.sample_config(path_drop=True)


def test_guidance_by_a_path_needs_guidance(model, tmp_path):
    trained = Generator.load(renamed(model, tmp_path / "path", path_drop=0.1))
    assert trained.sample_config(path_drop=True, guidance=3.0).path_drop
    with pytest.raises(UserError, match="path_drop is a way to guide: leave it out, or name"):
        trained.sample_config(path_drop=True, guidance=1.0)


def print_differences(run: Path, path: Path) -> None:
    """What one device, eight, and eight that share weights in pairs draw, on a machine of eight."""
    eight, shared = Generator.load(run), Generator.load(run, fsdp=2)
    first = jax.devices()[0]
    one = dataclasses.replace(eight, params=jax.device_put(eight.params, first), mesh=make_mesh(MeshConfig(), [first]))
    images = [image(path), None]
    requests = [Request(text, i, images[i % 2]) for i, text in enumerate(PROMPTS)]
    results = []
    for generator, extra in ((one, 0), (eight, 3), (shared, 3)):
        latents = np.asarray(generator.latents(requests + requests[-1:] * extra, DRAW))[:5]
        (clips,) = generator.generate_batches(requests, DRAW)
        results.append((latents, clips.astype(int)))
    split = [leaf for leaf in jax.tree.leaves(shared.params) if not leaf.sharding.is_fully_replicated]
    differences = {
        "latents": [float(np.abs(a - results[0][0]).max()) for a, _ in results[1:]],
        "pixels": [int(np.abs(b - results[0][1]).max()) for _, b in results[1:]],
        "clips": [len(b) for _, b in results],
        "spread": float(results[0][0].std()),
        "devices": [len(jax.tree.leaves(generator.params)[0].devices()) for generator in (one, eight, shared)],
        "split": [len(split), max(leaf.addressable_shards[0].data.size / leaf.size for leaf in split)],
    }
    print(json.dumps(differences))


@pytest.mark.slow
def test_devices_change_nothing(model, tmp_path):
    done = call(print_differences, model, tmp_path / "a.png", devices=8)
    assert done.status == 0, done.err
    differences = json.loads(done.out.splitlines()[-1])
    assert differences["devices"] == [1, 8, 8] and differences["clips"] == [5, 5, 5] and differences["spread"] > 0.3
    assert differences["split"][0] > 0 and differences["split"][1] == 0.5  # the weights lie in halves with fsdp=2
    assert max(differences["latents"]) < 1e-5 and max(differences["pixels"]) <= 1


def test_a_clip_starts_from_its_image(generator, tmp_path):
    a, b = image(tmp_path / "a.png"), image(tmp_path / "b.png", seed=1)
    requests = [Request("a ring", 3, path) for path in (a, b, None)]
    from_a, from_b, free = np.asarray(generator.latents(requests, DRAW))
    pixels = to_signed(jnp.asarray(picture(a, generator.clip)[None]))
    np.testing.assert_allclose(from_a[:1], generator.vae.encode(generator.vae.params, pixels)[0], atol=1e-5)
    for other in (from_b, free):
        assert np.abs(from_a[1:] - other[1:]).mean() > 1e-3
    plain = np.asarray(generator.latents([requests[2]] * 3, DRAW))
    np.testing.assert_allclose(free, plain[0], atol=1e-5)


def test_a_clip_may_have_another_size(model):
    larger = Generator.load(model, clip="17x32x64")
    assert larger.generate("a ring", config=DRAW).frames.shape == (1, 17, 32, 64, 3)
    for clip, words in (("18x32x32", "use 17 or 21"), ("9x36x32", "use 32 or 40"), ("9x32", "not of the form")):
        with pytest.raises(UserError, match=words):
            Generator.load(model, clip=clip)


def test_the_shift_is_the_one_of_training(model, tmp_path):
    assert Generator.load(model).times == {"shift": 1.0, "terminal": 0.0, "schedule": "uniform"}
    run = renamed(model, tmp_path / "dit", shift_follows_tokens=True)
    small, large = (Generator.load(run, clip=clip).times["shift"] for clip in ("9x32x32", "33x64x64"))
    assert 1 < small < large


def test_devices_that_do_not_divide_are_refused(model):
    with pytest.raises(UserError, match="fsdp=3"):
        Generator.load(model, fsdp=3)


def job(model: Path, out: Path, **changes) -> GenerationJob:
    requests = [Request(text, 10 + i) for i, text in enumerate(PROMPTS)]
    return dataclasses.replace(GenerationJob(requests, DRAW, out), **changes)


class Killed(Exception):
    pass


def killed(generator: Generator, after: int) -> Generator:
    """The generator of a process that ends after some batches."""

    class Dying(Generator):
        def generate_batches(self, requests, config, batch_size=16):
            for number, clips in enumerate(super().generate_batches(requests, config, batch_size)):
                if number == after:
                    raise Killed
                yield clips

    return Dying(**{field.name: getattr(generator, field.name) for field in dataclasses.fields(generator)})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stopped_job_goes_on_where_it_was(model, generator, tmp_path, capsys):
    names = generate_folder(generator, job(model, tmp_path / "whole"), batch_size=2)
    with pytest.raises(Killed):
        generate_folder(killed(generator, after=1), job(model, tmp_path / "cut"), batch_size=2)
    early = contents(tmp_path / "cut")
    assert set(early) == {"inputs.json", *names[:2], *(name.replace("mp4", "gif") for name in names[:2])}
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.mp4")}
    capsys.readouterr()
    assert generate_folder(generator, job(model, tmp_path / "cut"), batch_size=2) == names
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == time for name, time in times.items())
    progress = capsys.readouterr().err
    assert "4/5" in progress and "5/5" in progress and "2/5" not in progress
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    summary = json.loads((tmp_path / "cut" / "samples.json").read_text())
    assert summary["model"] == str(model)
    assert summary["sampling"] == plain(DRAW) | generator.times
    assert summary["clips"][1] == {"file": "00011-a-blue-square.mp4", "prompt": "a blue square", "seed": 11}


def test_processes_take_prompts_in_turn_and_the_last_one_closes(model, generator, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for index, count in ((1, 2), (0, 5)):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        names = generate_folder(generator, job(model, tmp_path / "out"))
        assert len(list((tmp_path / "out").glob("*.mp4"))) == count
        assert (tmp_path / "out" / "samples.json").exists() == (index == 0)
        assert all((tmp_path / "out" / name).exists() for name in names[1::2])


def test_a_folder_of_other_clips_is_refused(model, generator, tmp_path):
    a, out = image(tmp_path / "a.png"), tmp_path / "out"
    start = [Request("a ring", 0, a)]
    generate_folder(generator, job(model, out, requests=start))
    before = contents(out)
    generate_folder(generator, job(model, out, requests=start), batch_size=1)
    others = [
        ({"requests": [Request("a ring", 1, a)]}, "list of prompts"),
        ({"requests": [Request("a ring", 0, image(tmp_path / "b.png", seed=1))]}, "list of prompts"),
        ({"requests": start, "config": dataclasses.replace(DRAW, steps=4)}, "steps"),
        ({"requests": start, "fps": 9.0}, "fps"),
    ]
    for changes, key in others:
        with pytest.raises(UserError, match=f"made with another {key}: name another --out"):
            generate_folder(generator, job(model, out, **changes))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no clips generated"):
        generate_folder(generator, job(model, tmp_path / "mine"))
    shutil.copytree(model / "checkpoints" / "1", model / "checkpoints" / "2")
    try:
        with pytest.raises(UserError, match="another checkpoint"):
            generate_folder(generator, job(model, out, requests=start))
    finally:
        shutil.rmtree(model / "checkpoints" / "2")
    assert contents(out) == before


def test_what_cannot_be_drawn_is_refused_before_anything_is(model, generator, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    requests = [Request("a ring", i) for i in range(3)]
    for changes, words in [
        ({"requests": [*requests, Request("red " * 40, 3)]}, "tokens does not fit into 16"),
        ({"requests": [*requests, Request("a ring", 3, tmp_path / "text.png")]}, "text.png: it does not decode"),
        ({"config": dataclasses.replace(DRAW, tile=20)}, "multiples of the spatial stride"),
        ({"config": dataclasses.replace(DRAW, negative_prompt="red " * 40)}, "tokens does not fit"),
    ]:
        with pytest.raises(UserError, match=words):
            generate_folder(generator, job(model, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_model_that_never_saw_an_image_refuses_one(model, tmp_path):
    blind = Generator.load(renamed(model, tmp_path / "dit", image_probability=0.0))
    blind.check([Request("a ring", 0)], DRAW)
    with pytest.raises(UserError, match="train one with --config.image_probability=0.3"):
        blind.check([Request("a ring", 0), Request("a ring", 1, image(tmp_path / "a.png"))], DRAW)
