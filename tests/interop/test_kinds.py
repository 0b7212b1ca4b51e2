"""Kinds of published weights: fp8 with and without scales, variants, quantised ones, parts of two releases."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from mobile_video_jax.interop.mapping import Source, check_names, read_params
from mobile_video_jax.weights.huggingface import open_tensors
from tests.interop.pipeline import make_pipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ltx") / "pipeline"
    make_pipeline(folder)
    return folder


def saved(path: Path, tensors: dict[str, Any]) -> Path:
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file(tensors, path)
    return path


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("scale", [None, ("scale_weight", ()), ("weight_scale", (6, 1))])
def test_fp8_is_read_with_its_scale(tmp_path, dtype, scale):
    torch = pytest.importorskip("torch")
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    tensors, expected = {"a.weight": weight, "b.weight": torch.ones(2)}, weight.float()
    if scale:
        name, shape = scale
        tensors |= {f"a.{name}": torch.full(shape, 0.25), "scaled_fp8": torch.zeros(2), "a.scale_input": torch.ones(1)}
        expected = 0.25 * expected
    opened = open_tensors(saved(tmp_path / "x.safetensors", tensors))
    assert opened.keys() == {"a.weight", "b.weight"}
    assert np.array_equal(opened["a.weight"][...], expected.numpy())
    params = read_params(
        opened,
        {"a": Source("a.weight"), "b": Source("b.weight")},
        {"a": np.zeros((6, 4), np.float32), "b": np.zeros(2, np.float32)},
        "x",
    )
    assert params["a"].dtype == np.float32


def test_a_transformer_in_fp8_is_imported(pipeline, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    shutil.copytree(pipeline, tmp_path / "pipeline")
    file = tmp_path / "pipeline" / "transformer" / WEIGHTS
    tensors = load_file(file)
    saved(file, {name: x.to(torch.float8_e4m3fn) if x.ndim == 2 else x for name, x in tensors.items()})
    release = open_diffusers(tmp_path / "pipeline")
    done = import_weights(release, tmp_path / "run", clip="9x32x32", frame_rate=25.0, scan=False)
    assert done["parameters"] == sum(x.numel() for x in tensors.values())


def test_quantised_weights_are_refused_before_anything_is_written(pipeline, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    shutil.copytree(pipeline, tmp_path / "pipeline")
    file = tmp_path / "pipeline" / "transformer" / WEIGHTS
    tensors = load_file(file)
    saved(file, {name: x.to(torch.int8) if x.ndim == 2 else x for name, x in tensors.items()})
    with pytest.raises(UserError, match=r"transformer: tensor .* is of I8: quantised weights are not read"):
        import_weights(
            open_diffusers(tmp_path / "pipeline"), tmp_path / "run", clip="9x32x32", frame_rate=25.0, scan=False
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipeline"]


def test_the_only_variant_is_taken(pipeline, tmp_path):
    for name in ("bf16", "fp16"):
        shutil.copy(pipeline / "vae" / WEIGHTS, tmp_path / WEIGHTS.replace(".safe", f".{name}.safe"))
        if name == "bf16":
            assert open_tensors(tmp_path, WEIGHTS).keys() == open_tensors(pipeline / "vae", WEIGHTS).keys()
    with pytest.raises(UserError, match=r"holds variants, .*bf16.safetensors and .*fp16.safetensors: rename"):
        open_tensors(tmp_path, WEIGHTS)


def test_a_sharded_variant_is_taken_and_a_missing_shard_named(tmp_path):
    torch = pytest.importorskip("torch")
    shards = [f"diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, shard in enumerate(shards):
        saved(tmp_path / shard, {f"x{i}": torch.ones(2)})
    index = {"weight_map": {f"x{i}": shard for i, shard in enumerate(shards)}}
    (tmp_path / f"{WEIGHTS}.index.fp16.json").write_text(json.dumps(index))
    assert open_tensors(tmp_path, WEIGHTS).keys() == {"x0", "x1"}
    (tmp_path / shards[1]).unlink()
    with pytest.raises(UserError, match=f"{shards[1]} is missing"):
        open_tensors(tmp_path, WEIGHTS)


def test_a_quantised_text_encoder_is_refused_by_name(pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "pipeline")
    path = tmp_path / "pipeline" / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"load_in_8bit": True}}))
    with pytest.raises(UserError, match="quantization_config"):
        import_weights(
            open_diffusers(tmp_path / "pipeline"), tmp_path / "run", clip="9x32x32", frame_rate=25.0, scan=False
        )


def test_names_are_checked_without_reading(pipeline):
    with pytest.raises(UserError, match="has no place in the network"):
        check_names(open_tensors(pipeline / "vae", WEIGHTS), {}, "vae")
