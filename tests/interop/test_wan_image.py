"""Wan 2.2 TI2V from a first frame: what diffusers' WanImageToVideoPipeline samples; other Wans refuse an image."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.interop.export_diffusers import export_diffusers
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from mobile_video_jax.models.run import Run
from tests.commands import run
from tests.interop.test_wan_pipeline import NEGATIVE, PROMPT, make_wan
from tests.interop.test_wan_transformer import pack

CLIP, SIDE = "9x64x64", 64


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> tuple[Any, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("wan") / "pipeline"
        yield make_wan(folder, vae="2.2", expand_timesteps=True), folder


@pytest.fixture(scope="module")
def imported(pipeline) -> Path:
    out = pipeline[1].parent / "run"
    import_weights(open_diffusers(pipeline[1]), out, clip=CLIP)
    return out


@pytest.fixture(scope="module")
def image(pipeline) -> Path:
    path = pipeline[1].parent / "first.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("steps", "guidance", "negative"), [(4, 4.0, NEGATIVE), (3, 1.0, "")])
def test_sampling_from_an_image_equals_the_pipeline(pipeline, imported, image, monkeypatch, steps, guidance, negative):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    # ftfy, which mends damaged texts, is not installed.
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_i2v.prompt_clean", str)
    text_to_video, folder = pipeline
    theirs = diffusers.WanImageToVideoPipeline(**text_to_video.components, expand_timesteps=True)
    generator = Generator.load(imported, text_encoder=f"wan:{folder}")
    config = generator.sample_config(steps=steps, guidance=guidance, negative_prompt=negative)
    noise = torch.randn((1, 3, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    _, *inputs = generator.inputs([Request(PROMPT, 0, image)], config)
    latents = generator._compiled(config, generator.params, pack(noise.numpy()), *inputs)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        image=PIL.Image.open(image),
        prompt=PROMPT,
        negative_prompt=negative,
        height=SIDE,
        width=SIDE,
        num_frames=9,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise,
        output_type="latent",
    ).frames.numpy()
    assert np.linalg.norm(latents - pack(expected)) <= 1e-3 * np.linalg.norm(expected)
    # The later frames alone, and they do depend on the first one.
    assert np.linalg.norm((latents - pack(expected))[:, 1:]) <= 1e-3 * np.linalg.norm(expected[:, :, 1:])
    without = generator._compiled(config, generator.params, pack(noise.numpy()), *inputs[:-1], None)
    assert np.linalg.norm((without - latents)[:, 1:]) > 1e-2 * np.linalg.norm(latents[:, 1:])


def test_the_command_starts_clips_from_an_image(pipeline, imported, image, tmp_path):
    done = run(
        *("launch.sample", f"--model={imported}", f"--text_encoder=wan:{pipeline[1]}", "--prompt=a red ball"),
        *(f"--image={image}", "--clip=5x32x32", "--steps=2", f"--out={tmp_path / 'clips'}"),
    )
    assert done.status == 0, done.err


@pytest.mark.parametrize("changes", [{}, {"boundary_ratio": 0.75}])
def test_text_to_video_refuses_an_image_in_one_line(image, tmp_path, monkeypatch, changes):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_wan(tmp_path / "pipeline", **changes)
    import_weights(open_diffusers(tmp_path / "pipeline"), tmp_path / "run", clip="5x32x32")
    command = ("launch.sample", f"--model={tmp_path / 'run'}", f"--text_encoder=wan:{tmp_path / 'pipeline'}")
    done = run(*command, "--prompt=a red ball", f"--image={image}", f"--out={tmp_path / 'clips'}")
    assert done.status == 2 and not (tmp_path / "clips").exists()
    assert done.err.strip().splitlines()[-1].startswith("error: this model cannot start from an image"), done.err


def test_the_image_pipelines_folder_is_the_same_release(pipeline, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    diffusers.WanImageToVideoPipeline(**pipeline[0].components, expand_timesteps=True).save_pretrained(tmp_path / "it")
    import_weights(open_diffusers(tmp_path / "it"), tmp_path / "run", clip=CLIP)
    assert Run.open(tmp_path / "run").denoiser.config.image_probability > 0
    export_diffusers(tmp_path / "run", tmp_path / "back", text=tmp_path / "it")
    before, after = (json.loads((tmp_path / name / "model_index.json").read_text()) for name in ("it", "back"))
    notes = ("_diffusers_version", "_name_or_path")
    assert after == {key: value for key, value in before.items() if key not in notes}


def test_an_image_as_further_channels_is_refused(pipeline, tmp_path):
    shutil.copytree(pipeline[1], tmp_path / "pipeline")
    index = tmp_path / "pipeline" / "model_index.json"
    changes = {"_class_name": "WanImageToVideoPipeline", "expand_timesteps": False}
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    with pytest.raises(UserError, match="takes its image as further channels.*name the folder of Wan 2.2 TI2V"):
        open_diffusers(tmp_path / "pipeline")
