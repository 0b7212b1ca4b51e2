"""An imported pipeline draws what diffusers' own draws."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.samplers import fresh_noise
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.interop.export_diffusers import export_diffusers
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from mobile_video_jax.interop.ltx_sampler import Sampler, parse_scheduler, scheduler_settings
from mobile_video_jax.metrics.reconstruction import psnr
from mobile_video_jax.models.run import Run
from mobile_video_jax.vae.pixels import to_bytes
from tests.commands import run
from tests.interop.pipeline import SCHEDULER, make_pipeline

CLIP, PROMPT, STEPS, SCALE, RATE = "9x64x64", "a red ball moving", 5, 3.0, 12.5


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> tuple[Any, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("ltx") / "pipeline"
        yield make_pipeline(folder), folder


@pytest.fixture(scope="module")
def imported(pipeline) -> Path:
    out = pipeline[1].parent / "run"
    summary = import_weights(open_diffusers(pipeline[1]), out, clip=CLIP, frame_rate=RATE, scan=True)
    assert summary["parameters"] == sum(x.numel() for x in pipeline[0].transformer.parameters())
    return out


def test_sampling_equals_the_pipeline(pipeline, imported):
    torch = pytest.importorskip("torch")
    theirs, folder = pipeline
    generator = Generator.load(imported, text_encoder=f"ltx:{folder}")
    assert generator.times["terminal"] == 0.1 and generator.times["shift"] != 1
    config = generator.sample_config(steps=STEPS, guidance=SCALE)
    latents = generator.latents([Request(PROMPT, 7)], config)
    noise = generator.inputs([Request(PROMPT, 7)], config)[0]
    inputs = {
        **{"prompt": PROMPT, "height": 64, "width": 64, "num_frames": 9, "frame_rate": RATE},
        **{"num_inference_steps": STEPS, "guidance_scale": SCALE},
        "latents": torch.tensor(np.asarray(noise).reshape(1, -1, noise.shape[-1])),
    }
    theirs.set_progress_bar_config(disable=True)
    their_latents = theirs(**inputs, output_type="latent").frames.numpy().reshape(latents.shape)
    assert np.linalg.norm(latents - their_latents) <= 1e-3 * np.linalg.norm(their_latents)
    frames = theirs(**inputs, output_type="np").frames[0]
    ours = np.asarray(to_bytes(generator.vae.decode(generator.vae.params, jnp.asarray(latents))))[0]
    assert psnr(np.round(frames * 255).astype(np.uint8), ours) >= 40


def test_noise_drawn_afresh_at_every_step_is_the_schedulers(pipeline, imported, monkeypatch):
    """0.9.6-distilled: stochastic_sampling of the scheduler is the solver `renoise`."""
    torch = pytest.importorskip("torch")
    theirs, folder = pipeline
    scheduler = type(theirs.scheduler)(**SCHEDULER, stochastic_sampling=True)
    assert parse_scheduler(dict(scheduler.config), "LTXPipeline") == Sampler(renoises=True)
    assert scheduler_settings(Sampler(renoises=True))["stochastic_sampling"]
    generator = Generator.load(imported, text_encoder=f"ltx:{folder}", clip="9x32x32")
    config = generator.sample_config(steps=3, guidance=1.0, solver="renoise")
    latents = generator.latents([Request(PROMPT, 7)], config)
    noise, draws = generator.inputs([Request(PROMPT, 7)], config)[0], iter(jnp.arange(3))
    drawn = lambda shape, **_: torch.tensor(np.array(fresh_noise(noise, next(draws)))).reshape(shape)
    monkeypatch.setattr(f"{type(scheduler).__module__}.randn_tensor", drawn)
    monkeypatch.setattr(theirs, "scheduler", scheduler)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        prompt=PROMPT,
        height=32,
        width=32,
        num_frames=9,
        frame_rate=RATE,
        num_inference_steps=3,
        guidance_scale=1.0,
        latents=torch.tensor(np.asarray(noise).reshape(1, -1, noise.shape[-1])),
        output_type="latent",
    ).frames.numpy()
    expected = expected.reshape(latents.shape)
    assert np.linalg.norm(latents - expected) <= 1e-3 * np.linalg.norm(expected)


def test_the_run_says_what_it_is(pipeline, imported):
    record = Run.open(imported).record
    assert record["stage"] == "dit" and record["config"]["text_encoder"].startswith("ltx-t5-")
    assert record["config"]["compression"] == "t8_s32_c6" and record["config"]["model"]["scan"]
    assert Run.open(imported / "vae", "vae").config["model"]["family"] == "ltx"


def damage(folder: Path, change: str) -> None:
    match change:
        case "family":
            write(folder / "model_index.json", _class_name="MochiPipeline")
        case "class":
            write(folder / "transformer" / "config.json", _class_name="WanTransformer3DModel")
        case "key":
            write(folder / "transformer" / "config.json", window=7)
        case "scheduler":
            write(folder / "scheduler" / "scheduler_config.json", use_karras_sigmas=True)
        case "shard":
            (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
        case "pickle":
            shard = folder / "vae" / "diffusion_pytorch_model.safetensors"
            shard.rename(shard.with_suffix(".bin"))
        case "text":
            write(folder / "text_encoder" / "config.json", d_model=32)
        case "cut":
            shard = folder / "transformer" / "diffusion_pytorch_model.safetensors"
            shard.write_bytes(shard.read_bytes()[:-100])


def write(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("family", "is of MochiPipeline: name the folder of an LTX-Video or Wan pipeline"),
        ("class", "is of WanTransformer3DModel, not LTXVideoTransformer3DModel"),
        ("key", "window=7 is unknown"),
        ("scheduler", "use_karras_sigmas=True is not supported"),
        ("shard", "diffusion_pytorch_model.safetensors is missing: download"),
        ("pickle", "convert diffusion_pytorch_model.bin to safetensors"),
        ("text", "take 6 channels and text states of 16|text states of 16, the VAE"),
        ("cut", "is damaged"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(pipeline, tmp_path, change, message):
    shutil.copytree(pipeline[1], tmp_path / "pipeline")
    damage(tmp_path / "pipeline", change)
    with pytest.raises(UserError, match=message):
        import_weights(open_diffusers(tmp_path / "pipeline"), tmp_path / "run", clip=CLIP, frame_rate=RATE, scan=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_draws_after_importing(pipeline, imported, tmp_path):
    """The user's way: launch.import_weights, then launch.sample with the text encoder's place."""
    done = run("launch.import_weights", f"--source={pipeline[1]}", f"--out={tmp_path / 'run'}", "--clip=9x32x32")
    assert done.status == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["text_encoder"] == Run.open(imported).record["config"]["text_encoder"]
    again = run("launch.import_weights", f"--source={pipeline[1]}", f"--out={tmp_path / 'run'}")
    assert again.status == 2 and "is not empty" in again.err
    done = run(
        *("launch.sample", f"--model={tmp_path / 'run'}", "--prompt=a red ball", f"--out={tmp_path / 'clips'}"),
        *("--steps=2", f"--text_encoder=ltx:{pipeline[1]}"),
    )
    assert done.status == 0, done.err
    assert list((tmp_path / "clips").glob("*.mp4"))


def same_tensors(one: Path, other: Path) -> bool:
    tensors, others = load_file(one), load_file(other)
    assert tensors.keys() == others.keys()
    return all(x.dtype == others[name].dtype and x.tobytes() == others[name].tobytes() for name, x in tensors.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_import_and_export_are_the_identity(pipeline, imported, tmp_path, dtype):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    folder = tmp_path / "pipeline"
    theirs = diffusers.LTXPipeline.from_pretrained(pipeline[1], local_files_only=True)
    theirs.vae.to(getattr(torch, dtype)), theirs.transformer.to(getattr(torch, dtype))
    theirs.save_pretrained(folder)
    import_weights(open_diffusers(folder), tmp_path / "run", clip=CLIP, frame_rate=RATE, scan=dtype == "float32")
    export_diffusers(tmp_path / "run", tmp_path / "back", dtype=dtype, text=folder)
    weights = "diffusion_pytorch_model.safetensors"
    assert same_tensors(folder / "transformer" / weights, tmp_path / "back" / "transformer" / weights)
    back = diffusers.LTXPipeline.from_pretrained(tmp_path / "back", local_files_only=True)
    for part in ("transformer", "vae", "scheduler"):
        assert settings(getattr(back, part)) == settings(getattr(theirs, part)), part
    vae, network = load_file(folder / "vae" / weights), load_file(tmp_path / "back" / "vae" / weights)
    for name in vae.keys() - {"latents_mean", "latents_std"}:
        assert vae[name].tobytes() == network[name].tobytes(), name


def settings(part: Any) -> dict[str, Any]:
    """Without diffusers' own notes, and the ratios, which we write out where diffusers works them out."""
    notes = ("_", "spatial_compression", "temporal_compression")
    return {key: value for key, value in json.loads(part.to_json_string()).items() if not key.startswith(notes)}


def test_a_model_that_diffusers_has_no_class_for_is_refused(imported, tmp_path):
    shutil.copytree(imported, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["config"]["model"]["norm_eps"] = 1e-4
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="norm_eps"):
        export_diffusers(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
