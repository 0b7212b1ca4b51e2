"""LTX-Video from 0.9.5 on: the sampler comes with the weights, from a pipeline's folder or a file's header."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.interop import ltx_release
from mobile_video_jax.interop.diffusers_folder import Component
from mobile_video_jax.interop.export_diffusers import export_diffusers
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from mobile_video_jax.interop.ltx_sampler import Sampler, parse_header, parse_scheduler
from mobile_video_jax.interop.ltx_single_file import VAES, read_sampler
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.student import taught_by
from tests.commands import run
from tests.interop.pipeline import SCHEDULER, make_pipeline

CLIP, RATE, PROMPT, NEGATIVE = "17x64x96", 12.5, "a red ball moving", "ball"
# diffusers copies a torch tensor in numpy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# Of Lightricks' distilled releases.
TIMES = (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> tuple[Any, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("ltx") / "pipeline"
        yield make_pipeline(folder, "LTXConditionPipeline", {"shift": 1.0}), folder


@pytest.fixture(scope="module")
def imported(pipeline) -> Path:
    out = pipeline[1].parent / "run"
    import_weights(open_diffusers(pipeline[1]), out, clip=CLIP, frame_rate=RATE, scan=False)
    return out


@pytest.fixture(scope="module")
def generator(pipeline, imported) -> Generator:
    return Generator.load(imported, text_encoder=f"ltx:{pipeline[1]}")


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 4, "guidance": 3.0, "negative_prompt": NEGATIVE},
        {"steps": 7, "guidance": 3.0},
        pytest.param({"steps": 1, "guidance": 1.0}, marks=pytest.mark.slow),
        {"times": (1.0, 0.9, 0.35), "guidance": 1.0},
    ],
)
def test_sampling_equals_the_pipeline(pipeline, generator, settings):
    torch = pytest.importorskip("torch")
    theirs, config = pipeline[0], generator.sample_config(**settings)
    _, *inputs = generator.inputs([Request(PROMPT, 0)], config)
    noise = torch.randn((1, 6, 3, 2, 3), generator=torch.Generator().manual_seed(7))
    latents = generator._compiled(config, generator.params, noise.permute(0, 2, 3, 4, 1).numpy(), *inputs)
    listed = {"timesteps": [1000 * t for t in config.times]} if config.times else {}
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        prompt=PROMPT,
        negative_prompt=config.negative_prompt,
        height=64,
        width=96,
        num_frames=17,
        frame_rate=RATE,
        num_inference_steps=config.steps,
        guidance_scale=config.guidance,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
        **listed,
    ).frames.permute(0, 2, 3, 4, 1)
    assert np.linalg.norm(latents - expected.numpy()) <= 1e-3 * np.linalg.norm(expected.numpy())


def test_the_run_holds_times_positions_and_text(imported):
    config = Run.open(imported).denoiser.config
    assert (config.time_schedule, config.time_shift, config.time_terminal) == ("linear_quadratic", 1.0, 0.0)
    assert config.model.rope_offset == 0.875
    assert config.text_tokens == 256 and config.text_encoder.startswith("ltx_masked-t5-")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_keeps_class_scheduler_and_statistics(pipeline, tmp_path, dtype):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    folder, weights = tmp_path / "pipeline", "diffusion_pytorch_model.safetensors"
    theirs = diffusers.LTXConditionPipeline.from_pretrained(pipeline[1], local_files_only=True)
    theirs.vae.to(getattr(torch, dtype)), theirs.transformer.to(getattr(torch, dtype))
    theirs.save_pretrained(folder)
    import_weights(open_diffusers(folder), tmp_path / "run", clip=CLIP, frame_rate=RATE, scan=True)
    export_diffusers(tmp_path / "run", tmp_path / "back", dtype=dtype, text=folder)
    assert json.loads((tmp_path / "back" / "model_index.json").read_text())["_class_name"] == "LTXConditionPipeline"
    scheduler = Path("scheduler", "scheduler_config.json")
    assert json.loads((tmp_path / "back" / scheduler).read_text()) == json.loads((folder / scheduler).read_text())
    for part in ("vae", "transformer"):
        before, after = load_file(folder / part / weights), load_file(tmp_path / "back" / part / weights)
        assert before.keys() == after.keys()
        for name, x in before.items():
            assert x.dtype == after[name].dtype and x.tobytes() == after[name].tobytes(), name


def test_listed_times_are_kept(imported, pipeline, tmp_path):
    """A distilled release: its own times unless others of them are named; no others."""
    shutil.copytree(imported, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["sampling"] |= {"times": TIMES, "steps": 8, "guidance": 1.0}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    generator = Generator.load(tmp_path / "run", text_encoder=f"ltx_masked:{pipeline[1]}")
    assert generator.sample_config().times == TIMES
    assert generator.sample_config(steps=4).times == ()
    assert generator.sample_config(times=TIMES[::3]).steps == 3
    with pytest.raises(UserError, match=r"distilled at the times 1.0,0.9937.*not 0.858"):
        generator.sample_config(steps=5)
    with pytest.raises(UserError, match=r"not 0.5: choose --times of them"):
        generator.sample_config(times=(1.0, 0.5))
    with pytest.raises(UserError, match="let them fall from 1"):
        generator.sample_config(times=(0.9, 0.5))
    with pytest.raises(UserError, match="was distilled at the times 1.0,.* and teaches at no others"):
        taught_by(RecoverTraining(teacher=str(tmp_path / "run")))


def test_weights_are_not_trained_with_other_positions_or_times(imported):
    """Positions and times of another release; another frame rate is the same function."""
    denoiser = Run.open(imported).denoiser
    config = denoiser.config
    Denoiser(config.at_rate(2 * RATE)).check_continues(denoiser)
    plain = dataclasses.replace(config.model, rope_offset=0.0)
    for changed, key in (
        ({"model": plain}, "model.rope_offset=0.875"),
        ({"time_schedule": "uniform"}, "time_schedule"),
    ):
        with pytest.raises(UserError, match=f"set --config.{key}"):
            Denoiser(dataclasses.replace(config, **changed)).check_continues(denoiser)


@pytest.mark.slow
def test_the_command_takes_times(pipeline, imported, tmp_path):
    command = ("launch.sample", f"--model={imported}", "--prompt=a red ball", f"--text_encoder=ltx:{pipeline[1]}")
    done = run(*command, "--clip=9x32x32", "--times=1,0.9,0.4,0", f"--out={tmp_path / 'clips'}")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "clips" / "samples.json").read_text())["sampling"]["times"] == [1.0, 0.9, 0.4]
    refused = run(*command, "--times=1,0.9", "--steps=4", f"--out={tmp_path / 'other'}")
    assert refused.status == 2 and "2 times make as many steps, not 4" in refused.err


def test_a_scheduler_that_the_pipeline_does_not_follow_is_refused():
    with pytest.raises(UserError, match="use_dynamic_shifting=True has no effect in LTXConditionPipeline"):
        parse_scheduler(SCHEDULER, "LTXConditionPipeline")


HEADER: dict[str, Any] = {
    "transformer": {"causal_temporal_positioning": True, "positional_embedding_max_pos": [20, 2048, 2048]},
    "scheduler": {"_class_name": "RectifiedFlowScheduler", "sampler": "LinearQuadratic", "shifting": None},
    "allowed_inference_steps": TIMES,
}


@pytest.mark.parametrize(
    ("times", "solver", "message"),
    [
        (TIMES, None, "add --solver=renoise for 0.9.6-distilled"),
        ((), "euler", "lists no times, so it is not distilled"),
    ],
)
def test_a_distilled_file_needs_its_step_named(monkeypatch, times, solver, message):
    monkeypatch.setattr(ltx_release, "open_single_file", lambda file: (Component({}, {}), Component({}, {})))
    monkeypatch.setattr(ltx_release, "read_sampler", lambda file, vae: Sampler(times=times))
    with pytest.raises(UserError, match=message):
        ltx_release.open_original(Path("ltxv.safetensors"), Path("text"), solver)
    opened = ltx_release.open_original(Path("ltxv.safetensors"), Path("text"), "renoise" if times else None)
    assert opened.sampler.renoises == bool(times)


def header_of(tmp_path: Path, header: dict[str, Any] | None, release: str = "0.9.5") -> Sampler:
    path = tmp_path / "release.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, path, header and {"config": json.dumps(header)})
    return read_sampler(path, Component(VAES[release], {}))


def test_a_files_header_names_the_sampler(tmp_path):
    assert header_of(tmp_path, HEADER) == Sampler(
        follows_tokens=False,
        terminal=0.0,
        schedule="linear_quadratic",
        times=TIMES,
        causal=True,
        text="ltx_masked",
    )
    shifted = {"transformer": {}, "scheduler": {"shifting": "SD3", "target_shift_terminal": 0.1}}
    assert header_of(tmp_path, shifted) == header_of(tmp_path, None, "0.9.1") == Sampler()
    with pytest.raises(UserError, match="its header names no sampler"):
        header_of(tmp_path, None)


@pytest.mark.parametrize(
    "change",
    [
        {"allowed_inference_steps": 8},
        {"allowed_inference_steps": ["1"]},
        {"allowed_inference_steps": [1000, 900]},
        {"transformer": None},
        {"scheduler": ["LinearQuadratic"]},
    ],
)
def test_a_header_of_other_types_is_refused_by_name(change):
    with pytest.raises(UserError, match=f"the file's header: {next(iter(change))}=.*: download it again"):
        parse_header(HEADER | change)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("scheduler", "sampler", "Constant"),
        ("scheduler", "shifting", "SimpleDiffusion"),
        ("scheduler", "stochastic", True),
        ("transformer", "positional_embedding_max_pos", [40, 2048, 2048]),
    ],
)
def test_another_sampler_is_refused_by_name(part, key, value):
    with pytest.raises(UserError, match=f"{part}.{key}="):
        parse_header(HEADER | {part: HEADER[part] | {key: value}})
