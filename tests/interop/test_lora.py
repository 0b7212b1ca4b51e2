"""Published LoRA files on imported runs, and adapters out again, in diffusers' and ComfyUI's names."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from mobile_video_jax.interop.lora_file import FILE, export_lora, import_lora
from mobile_video_jax.interop.lora_names import to_diffusers, to_original
from mobile_video_jax.interop.ltx_transformer import sources
from mobile_video_jax.interop.mapping import published, stacked
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from tests.interop.pipeline import make_pipeline

MODULES = {
    "transformer_blocks.0.attn1.to_q": (28, 28, 4),
    "transformer_blocks.1.attn1.to_q": (28, 28, 2),
    "transformer_blocks.1.attn2.to_out.0": (28, 28, 4),
    "transformer_blocks.0.ff.net.0.proj": (28, 112, 3),
    "time_embed.linear": (28, 168, 4),
}


@pytest.fixture(scope="module", params=[True, False], ids=["scanned", "unrolled"])
def base(tmp_path_factory, request) -> Run:
    folder = tmp_path_factory.mktemp("ltx")
    make_pipeline(folder / "pipeline")
    import_weights(open_diffusers(folder / "pipeline"), folder / "run", clip="9x32x32", scan=request.param)
    return Run.open(folder / "run")


def factors(prefix: str = "transformer.", names: tuple[str, str] = ("lora_A", "lora_B")) -> dict[str, np.ndarray]:
    rng, tensors = np.random.default_rng(0), {}
    for module, (inputs, outputs, rank) in MODULES.items():
        name = prefix + (module.replace("time_embed", "adaln_single") if prefix == "diffusion_model." else module)
        tensors[f"{name}.{names[0]}.weight"] = rng.standard_normal((rank, inputs)).astype(np.float32)
        tensors[f"{name}.{names[1]}.weight"] = rng.standard_normal((outputs, rank)).astype(np.float32)
    return tensors


def weights(run: Run) -> dict[str, np.ndarray]:
    """The network's published tensors, adapters merged."""
    params, model = run.sharded_params(make_mesh(MeshConfig(), jax.local_devices()[:1])), run.denoiser.config.model
    return published(params, stacked(sources(model), model.depth) if model.scan else sources(model))


@pytest.mark.parametrize("alpha", [None, 8.0])
@pytest.mark.parametrize(
    ("prefix", "names"), [("transformer.", ("lora_A", "lora_B")), ("diffusion_model.", ("lora_down", "lora_up"))]
)
def test_updates_are_those_of_the_file(base, tmp_path, prefix, names, alpha):
    """W + alpha / rank B A in the published layout, alpha being the rank where the file has none; ranks differ."""
    tensors = factors(prefix, names)
    if alpha:
        first = f"{prefix}transformer_blocks.0.attn1.to_q.alpha"
        tensors[first] = np.array(alpha, np.float32)
    save_file(tensors, tmp_path / "lora.safetensors")
    done = import_lora(tmp_path / "lora.safetensors", base, tmp_path / "run")
    assert (done["rank"], done["layers"]) == (4, 5)
    before, after = weights(base), weights(Run.open(tmp_path / "run"))
    plain = factors()
    for name, x in before.items():
        module = name.removesuffix(".weight")
        update = 0.0
        if module in MODULES and name.endswith(".weight"):
            scale = 2.0 if alpha and module.startswith("transformer_blocks.0.attn1") else 1.0
            update = scale * plain[f"transformer.{module}.lora_B.weight"] @ plain[f"transformer.{module}.lora_A.weight"]
        np.testing.assert_allclose(after[name], x + update, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("comfyui", [False, True])
def test_out_and_in_are_the_identity(base, tmp_path, comfyui):
    prefix = "diffusion_model." if comfyui else "transformer."
    save_file(factors(prefix), tmp_path / "lora.safetensors")
    import_lora(tmp_path / "lora.safetensors", base, tmp_path / "run")
    export_lora(Run.open(tmp_path / "run"), tmp_path / "out", comfyui=comfyui, dtype=np.float32)
    tensors, expected = load_file(tmp_path / "out" / FILE), factors(prefix)
    assert tensors.keys() == expected.keys()
    assert all(np.array_equal(x, expected[name]) for name, x in tensors.items())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"transformer.transformer_blocks.7.attn1.to_q.lora_A.weight": (2, 28)}, "no two factors of one rank"),
        ({f"transformer.window.lora_{x}.weight": (2, 2) for x in "AB"}, "window is no linear layer"),
        ({"transformer.proj_in.diff": (2, 2)}, "transformer.proj_in.diff is no factor of a LoRA"),
        (
            {f"transformer.proj_out.lora_{x}.weight": (2, 2) for x in "AB"},
            "the factor of proj_out.weight has 2 channels",
        ),
    ],
)
def test_what_is_placed_nowhere_is_named(base, tmp_path, tensors: dict[str, Any], message):
    save_file({name: np.ones(shape, np.float32) for name, shape in tensors.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=message):
        import_lora(tmp_path / "lora.safetensors", base, tmp_path / "run")
    assert not Path(tmp_path / "run").exists()


def test_a_few_step_adapter_says_how_it_is_sampled(base, tmp_path):
    save_file(factors(), tmp_path / "lora.safetensors")
    import_lora(tmp_path / "lora.safetensors", base, tmp_path / "style")
    import_lora(tmp_path / "lora.safetensors", base, tmp_path / "fast", steps=4, solver="renoise")
    style, fast = (Run.open(tmp_path / name).denoiser.sampling for name in ("style", "fast"))
    assert style == base.denoiser.sampling
    assert (fast.steps, fast.guidance, fast.solver, fast.frame_rate) == (4, 1.0, "renoise", style.frame_rate)


def test_a_run_without_an_adapter_is_refused(base, tmp_path):
    with pytest.raises(UserError, match="holds no adapter"):
        export_lora(base, tmp_path / "out", comfyui=False, dtype=np.float32)


def test_wan_names_are_those_of_diffusers_conversion():
    torch = pytest.importorskip("torch")
    convert = pytest.importorskip(
        "diffusers.loaders.lora_conversion_utils"
    )._convert_non_diffusers_wan_lora_to_diffusers
    layers = [f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"] + ["ffn.0", "ffn.2"]
    modules = [f"blocks.{i}.{layer}" for i in (0, 1) for layer in layers]
    modules += ["time_projection.1", "text_embedding.0", "text_embedding.2", "time_embedding.0", "head.head"]
    for module in modules:
        # The conversion expects whole blocks, so that other layers come with one.
        named = {
            f"diffusion_model.{name}.lora_{x}.weight": torch.ones(1) for name in (module, modules[0]) for x in "AB"
        }
        if module.startswith(("text", "time_embedding")):
            stem = module[:-1]
            named |= {f"diffusion_model.{stem}{i}.lora_{x}.weight": torch.ones(1) for i in "02" for x in "AB"}
        ours = to_diffusers(module, "wan")
        assert f"transformer.{ours}.lora_A.weight" in convert(named), module
        assert to_original(ours, "wan") == module and to_diffusers(ours, "wan") == ours
