"""Wan 2.2 A14B: two experts in one run, sampled by the time between them, and back to the bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.interop.export_diffusers import export_diffusers
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from mobile_video_jax.models.run import Run
from mobile_video_jax.vae.latent_stats import LatentStats
from tests.interop.test_wan_pipeline import NEGATIVE, PROMPT, WEIGHTS, make_wan
from tests.interop.test_wan_transformer import pack

BOUNDARY = 0.75


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> tuple[Any, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("wan") / "pipeline"
        yield make_wan(folder, boundary_ratio=BOUNDARY), folder


@pytest.fixture(scope="module")
def imported(pipeline) -> Path:
    out = pipeline[1].parent / "run"
    import_weights(open_diffusers(pipeline[1]), out, clip="1x32x32")
    return out


def test_sampling_equals_the_pipeline(pipeline, imported):
    torch = pytest.importorskip("torch")
    theirs, folder = pipeline
    generator = Generator.load(imported, text_encoder=f"wan:{folder}")
    own = generator.sample_config()
    assert (own.boundary, own.guidance, own.guidance_2, own.steps) == (BOUNDARY, 4.0, 3.0, 40)
    assert generator.sample_config(guidance=2.0).guidance_2 == 0.0  # as the pipeline: of both
    config = generator.sample_config(steps=3, negative_prompt=NEGATIVE)
    times = generator.time_grid(config)[:-1]
    assert 0 < sum(times >= BOUNDARY) < len(times)
    noise = torch.randn((1, 3, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    _, *inputs = generator.inputs([Request(PROMPT, 0)], config)
    latents = generator._compiled(config, generator.params, pack(noise.numpy()), *inputs)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=32,
        width=32,
        num_frames=1,
        num_inference_steps=3,
        guidance_scale=4.0,
        guidance_scale_2=3.0,
        latents=noise,
        output_type="latent",
    ).frames.numpy()
    assert np.linalg.norm(latents - pack(expected)) <= 1e-3 * np.linalg.norm(expected)


def test_import_and_export_are_the_identity(pipeline, imported, tmp_path):
    export_diffusers(imported, tmp_path / "back", text=pipeline[1])
    assert contents(tmp_path / "back") == contents(pipeline[1])


def contents(folder: Path) -> dict[str, Any]:
    """The index, and the tensors of the three networks."""
    index = json.loads((folder / "model_index.json").read_text())
    tensors = {name: load_file(folder / name / WEIGHTS) for name in ("transformer", "transformer_2", "vae")}
    return {
        "index": {key: value for key, value in index.items() if key not in ("_diffusers_version", "_name_or_path")},
        **{name: {key: (x.dtype, x.tobytes()) for key, x in network.items()} for name, network in tensors.items()},
    }


def test_each_expert_is_a_run_and_both_are_no_one_network(imported):
    experts = Run.open(imported).experts
    assert [expert.denoiser.sampling.guidance for expert in experts] == [4.0, 3.0]
    assert len({LatentStats.load(run / "vae") for run in (imported, *(expert.path for expert in experts))}) == 1
    with pytest.raises(UserError, match=r"holds two experts, .*: name .*run/high_noise or .*run/low_noise"):
        _ = Run.open(imported).denoiser
    with pytest.raises(UserError, match="leave --step and --best out"):
        Run.open(f"{imported}@0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundary_ratio": None}, "boundary_ratio=None is no time between two experts"),
        ({"boundary_ratio": "0.75"}, "boundary_ratio=0.75 is no time between two experts"),
        ({"transformer_2": 7}, r"two experts \(boundary_ratio=0.75\), transformer_2 is missing"),
        ({"transformer_2": [None, None]}, r"two experts \(boundary_ratio=0.75\), transformer_2 is missing"),
        ({"transformer": None}, "transformer is missing"),
        ("transformer_2", "transformer_2 is missing: download it too"),
        ({"num_layers": 3}, "the experts differ in num_layers, 2 and 3"),
    ],
)
def test_a_missing_expert_is_an_error(pipeline, tmp_path, change, message):
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline[1], folder)
    if isinstance(change, str):
        shutil.rmtree(folder / change)
    else:
        file = "transformer_2/config.json" if "num_layers" in change else "model_index.json"
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(UserError, match=message):
        open_diffusers(folder)


def test_one_expert_twice_is_an_error(pipeline, tmp_path):
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline[1], folder)
    shutil.copy(folder / "transformer" / WEIGHTS, folder / "transformer_2" / WEIGHTS)
    with pytest.raises(UserError, match="transformer and transformer_2 hold the same weights: download both"):
        open_diffusers(folder)
