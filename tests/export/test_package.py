"""What is saved is what was meant: its tiles, its bytes and what it computes."""

import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch

from export.app.ffn_memory import ffn_memory
from export.coreml.compress import Weights, compress
from export.coreml.mixed_bits import Sensitivity, recipe
from export.coreml.package import convert, size, write_package
from export.golden import write_golden
from export.metadata import Metadata
from export.mil.evaluate import evaluate
from export.mil.load import load_package
from export.mil.verify import verify_package
from export.part import Part
from export.phone.layers import attend
from export.phone.layout import PHONE
from export.phone.tiled_ffn import TiledFfn
from mobile_video_jax.core.errors import UserError

WIDTH, HIDDEN, TILES = 64, 128, 3


@pytest.fixture(scope="module")
def part() -> Part:
    torch.manual_seed(0)
    ffn = TiledFfn(torch.nn.Linear(WIDTH, HIDDEN), torch.nn.Linear(HIDDEN, WIDTH), TILES).requires_grad_(False)
    x = torch.randn(1, WIDTH, 1, 5)
    return Part("ffn", ffn, {"x": x.numpy()}, {"y": ffn(x).numpy()})


@pytest.fixture(scope="module")
def written(part: Part, tmp_path_factory) -> tuple[Path, dict]:
    """The folder, and the manifest's record of the package in it."""
    out = tmp_path_factory.mktemp("package")
    write_golden(out / part.golden, part.inputs, part.outputs)
    return out, write_package([part], out, Weights(), Metadata(author="A. Author"), lambda line: None)


def relative_error(package: Path, part: Part) -> float:
    actual = np.asarray(evaluate(load_package(package).function(), part.inputs).outputs["y"])
    return float(np.linalg.norm(actual - part.outputs["y"]) / np.linalg.norm(part.outputs["y"]))


def test_the_tiles_are_in_the_saved_package(written):
    operations = load_package(written[0] / "ffn.mlpackage").function().operations
    counts = Counter(op.op_type for op in operations)
    assert counts["conv"] == 2 * TILES
    assert counts["gelu"] == TILES
    assert counts["add"] == TILES - 1
    assert max(op.outputs[0].shape[1] for op in operations if op.op_type == "gelu") == -(-HIDDEN // TILES)


def test_the_record_tells_the_files(written, part):
    out, record = written
    weights = out / "ffn.mlpackage" / "Data/com.apple.CoreML/weights/weight.bin"
    assert record["sha256"][str(weights.relative_to(out / "ffn.mlpackage"))] == (
        hashlib.sha256(weights.read_bytes()).hexdigest()
    )
    assert record["bytes"] == record["fp16_bytes"] == size(out / "ffn.mlpackage") > 2 * 2 * WIDTH * HIDDEN
    function = record["functions"]["main"]
    assert function["inputs"] == {"x": {"shape": [1, WIDTH, 1, 5], "dtype": "float16"}}
    with np.load(out / function["golden"]) as golden:
        assert set(golden) == {"input:x", "output:y"}
        np.testing.assert_array_equal(golden["output:y"], part.outputs["y"])


def test_the_package_computes_the_module(written, part):
    assert relative_error(written[0] / "ffn.mlpackage", part) < 2e-3


def test_compressed_weights_are_smaller_and_err_the_more(part, tmp_path, capfd):
    model = convert(part, tmp_path / "plain.mlpackage")
    sizes, errors = [], []
    for weights in ("int8", "palette6", "palette4"):
        path = tmp_path / f"{weights}.mlpackage"
        compress(model, weights, {}).save(str(path))
        sizes.append(size(path))
        errors.append(relative_error(path, part))
    assert size(tmp_path / "plain.mlpackage") > sizes[0] > sizes[1] > sizes[2]
    assert 2e-3 < errors[0] < errors[1] < errors[2] < 0.2
    inputs = list(part.inputs.values())
    bits = recipe(part.module, inputs, model, Weights("mixed", target_psnr=35.0))
    assert 4 < np.mean(list(bits.values())) < 16
    assert Sensitivity(part.module, inputs, model).error(bits) <= 10**-3.5
    assert capfd.readouterr() == ("", "")


def test_functions_share_their_weights_and_mixed_ones_meet_their_bits(part, written, tmp_path):
    x = torch.randn(1, WIDTH, 1, 7)
    longer = dataclasses.replace(part, inputs={"x": x.numpy()}, outputs={"y": part.module(x).numpy()}, function="long")
    weights = Weights("mixed", target_bits=5.0)
    both = [dataclasses.replace(part, function="short"), longer]
    for each in both:
        write_golden(tmp_path / each.golden, each.inputs, each.outputs)
    record = write_package(both, tmp_path, weights, Metadata(author="A. Author"), lambda line: None)
    spec = ct.utils.load_spec(str(tmp_path / record["file"]))
    assert spec.description.metadata.author == "A. Author" and spec.description.metadata.userDefined["weights"]
    assert record["fp16_bytes"] < written[1]["bytes"] + 20_000  # a second program, no second copy of 33 kB of weights
    assert set(record["bits"].values()) <= {4, 6, 8, 16} and len(record["bits"]) == 2 * TILES
    assert np.mean(list(record["bits"].values())) <= 5
    assert record["bytes"] < record["fp16_bytes"] - 2 * WIDTH * HIDDEN // TILES
    for function in ("short", "long"):
        check = verify_package(tmp_path / record["file"], tmp_path / record["functions"][function]["golden"], function)
        assert check.compressed and 15 < check.summary()["psnr"] < 45


class Attended(torch.nn.Module):
    """Attention of one head, with the queries in two chunks."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attend(q, k, v, None, 2)


def test_queries_in_chunks_are_converted(tmp_path):
    shapes = {"q": (1, 8, 1, 7), "k": (1, 5, 1, 8), "v": (1, 8, 1, 5)}
    inputs = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in shapes.items()}
    outputs = {"y": Attended()(*map(torch.tensor, inputs.values())).numpy()}
    part = Part("attended", Attended(), inputs, outputs)
    convert(part, tmp_path / "attended.mlpackage")
    assert relative_error(tmp_path / "attended.mlpackage", part) < 2e-3


@pytest.mark.slow
def test_the_hidden_activation_falls_with_the_tiles(monkeypatch):
    monkeypatch.setattr("export.app.ffn_memory.TILES", (1, 4))
    whole, tiled = ffn_memory(16, 64, 5, PHONE)
    assert (whole["products"], tiled["products"]) == (2, 8)
    assert whole["tile_bytes"] == 2 * 64 * 5 == 4 * tiled["tile_bytes"]
    # Before and after GELU; with cut inputs also two partial sums and their sum.
    assert whole["hidden_bytes"] == 2 * whole["tile_bytes"] and tiled["hidden_bytes"] == 2 * tiled["tile_bytes"]
    assert tiled["peak_live_bytes"] < whole["peak_live_bytes"]
    _, cut = ffn_memory(16, 64, 5, PHONE, cut_inputs=True)
    assert cut["products"] == 20 and cut["hidden_bytes"] == 3 * cut["tile_bytes"] == 3 * tiled["tile_bytes"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("int3",), "weights 'int3' are unknown: use one of fp16, int8, palette8, palette6, palette4, mixed"),
        (("int8", 6.0), "--target_bits and --target_psnr belong to --weights=mixed, not int8"),
        (("mixed", 6.0, 40.0), "set --target_bits or --target_psnr, not both"),
        (("mixed", 3.0), "--target_bits=3 cannot be met: use 4 to 8"),
    ],
)
def test_weights_that_there_are_not_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Weights(*settings)
