"""An imported Wan pipeline samples what diffusers' own samples, and goes back to the bit."""

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
from mobile_video_jax.interop.wan_release import parse_scheduler, scheduler_settings
from mobile_video_jax.models.run import Run
from tests.commands import run
from tests.interop.test_wan_transformer import SIZES, pack
from tests.interop.test_wan_vae import KINDS
from tests.text.test_clip import randomize
from tests.text.test_sentencepiece import PIECES
from tests.text.test_sentencepiece import SIZES as TEXT_SIZES

PROMPT, NEGATIVE, WEIGHTS = "a red ball moving", "ball", "diffusion_pytorch_model.safetensors"
SCHEDULER: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def make_wan(folder: Path, vae: str = "2.1", **changes: Any) -> Any:
    """Saves a pipeline of random weights with a kind of VAE, of two experts where there is a boundary_ratio."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vocabulary = [(piece, -0.5 * i) for i, piece in enumerate(PIECES)]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    sizes = SIZES | {"in_channels": 3, "out_channels": 3, "text_dim": TEXT_SIZES["d_model"]}
    experts = ("transformer", "transformer_2") if "boundary_ratio" in changes else ("transformer",)
    published = diffusers.WanPipeline(
        tokenizer=transformers.T5Tokenizer(vocab=vocabulary),
        text_encoder=randomize(transformers.UMT5EncoderModel(transformers.UMT5Config(**TEXT_SIZES))),
        vae=diffusers.AutoencoderKLWan(**KINDS[vae]).eval(),
        **{name: diffusers.WanTransformer3DModel(**sizes).eval() for name in experts},
        scheduler=diffusers.UniPCMultistepScheduler(**SCHEDULER),
        **changes,
    )
    published.save_pretrained(folder)
    return published


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> tuple[Any, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("wan") / "pipeline"
        yield make_wan(folder), folder


@pytest.fixture(scope="module")
def imported(pipeline) -> Path:
    out = pipeline[1].parent / "run"
    import_weights(open_diffusers(pipeline[1]), out, clip="9x32x48", scan=True)
    return out


@pytest.mark.parametrize(
    ("clip", "steps", "guidance", "negative"),
    [("9x32x48", 5, 4.0, NEGATIVE), pytest.param("1x32x32", 2, 1.0, "", marks=pytest.mark.slow)],
)
def test_sampling_equals_the_pipeline(pipeline, imported, clip, steps, guidance, negative):
    torch = pytest.importorskip("torch")
    theirs, folder = pipeline
    generator = Generator.load(imported, text_encoder=f"wan:{folder}", clip=clip)
    config = generator.sample_config(steps=steps, guidance=guidance, negative_prompt=negative)
    assert config.solver == "unipc" and generator.times == {"shift": 3.0, "terminal": 0.0, "schedule": "thousandth"}
    frames, height, width = map(int, clip.split("x"))
    shape = (1, 3, (frames - 1) // 4 + 1, height // 8, width // 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    _, *inputs = generator.inputs([Request(PROMPT, 0)], config)
    latents = generator._compiled(config, generator.params, pack(noise.numpy()), *inputs)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        prompt=PROMPT,
        negative_prompt=negative,
        height=height,
        width=width,
        num_frames=frames,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise,
        output_type="latent",
    ).frames.numpy()
    assert np.linalg.norm(latents - pack(expected)) <= 1e-3 * np.linalg.norm(expected)


def test_the_run_says_what_it_is(imported):
    record = Run.open(imported).record
    assert record["config"]["compression"] == "t4_s16_c12" and record["config"]["text_tokens"] == 512
    assert record["config"]["text_encoder"].startswith("wan-umt5-") and record["sampling"]["frame_rate"] == 16.0
    assert Run.open(imported / "vae", "vae").config["model"]["family"] == "wan"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_import_and_export_are_the_identity(pipeline, imported, tmp_path, dtype):
    torch = pytest.importorskip("torch")
    folder, source = pipeline[1], imported
    if dtype == "bfloat16":
        folder, source = tmp_path / "pipeline", tmp_path / "run"
        shutil.copytree(pipeline[1], folder)
        for part in ("transformer", "vae"):
            from safetensors.torch import load_file as load
            from safetensors.torch import save_file as save

            save(
                {name: x.to(torch.bfloat16) for name, x in load(folder / part / WEIGHTS).items()},
                folder / part / WEIGHTS,
            )
        import_weights(open_diffusers(folder), source, clip="9x32x48", scan=False)
    export_diffusers(source, tmp_path / "back", dtype=dtype, text=folder)
    for part in ("transformer", "vae"):
        before, after = load_file(folder / part / WEIGHTS), load_file(tmp_path / "back" / part / WEIGHTS)
        assert before.keys() == after.keys()
        assert all(x.dtype == after[name].dtype and x.tobytes() == after[name].tobytes() for name, x in before.items())
    scheduler = Path("scheduler", "scheduler_config.json")
    assert json.loads((tmp_path / "back" / scheduler).read_text()) == json.loads((folder / scheduler).read_text())
    for part in ("transformer", "vae"):
        kind = type(getattr(pipeline[0], part))
        ours, theirs = (dict(kind.load_config(root / part)) for root in (tmp_path / "back", folder))
        assert {k: v for k, v in ours.items() if k[0] != "_"} == {k: v for k, v in theirs.items() if k[0] != "_"}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("transformer/config.json", {"num_attention_heads": "3"}, "num_attention_heads='3' is no value like 40"),
        ("transformer/config.json", {"num_layers": True}, "num_layers=True is no value like 40"),
        ("transformer/config.json", {"attention_head_dim": 21}, "attention_head_dim=21 is odd"),
        ("transformer/config.json", {"num_attention_heads": 6}, r"transformer: tensor .* has shape \(66,\)"),
        ("transformer/config.json", {"ffn_dim": 41}, r"transformer: tensor .* has shape \(66, 40\)"),
        ("vae/config.json", {"dim_mult": ["1", "2", "4", "4"]}, "dim_mult=.* is no value like"),
        ("vae/config.json", {"base_dim": 6}, r"vae: tensor .* has shape"),
        ("vae/config.json", {"latents_std": [0.0, 1.0, 1.0]}, "a deviation is not above 0"),
        ("vae/config.json", {"latents_mean": [float("nan"), 1.0, 1.0]}, "its statistics are not finite"),
        ("text_encoder/config.json", {"model_type": "t5"}, "is of model_type t5, wan was trained on umt5"),
        ("text_encoder/config.json", {"vocab_size": 256}, "has 116 tokens, the model knows 256: take both from one"),
    ],
)
def test_parts_of_another_model_are_refused_before_anything_is_written(pipeline, tmp_path, file, change, message):
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline[1], folder)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match=message):
        patch.setattr("mobile_video_jax.interop.import_weights.save_model", None)
        import_weights(open_diffusers(folder), tmp_path / "run", clip="9x32x48")
    assert not (tmp_path / "run").exists()


def test_other_schedulers_are_refused_by_name():
    assert parse_scheduler(scheduler_settings(5.0)) == 5.0
    for change, message in (
        ({"solver_order": 3}, "solver_order=3 is not supported; Wan's is 2"),
        ({"use_flow_sigmas": False}, "use_flow_sigmas=False is not supported"),
        ({"window": 1}, "window=1 is not known here"),
    ):
        with pytest.raises(UserError, match=message):
            parse_scheduler(SCHEDULER | change)


def test_the_command_generates_after_importing(pipeline, imported, tmp_path):
    done = run(
        *("launch.sample", f"--model={imported}", f"--text_encoder=wan:{pipeline[1]}", "--prompt=a red ball"),
        *("--clip=5x32x32", "--steps=2", f"--out={tmp_path / 'clips'}"),
    )
    assert done.status == 0, done.err
