"""What is saved is what was meant: its tiles, its bytes and what it computes."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from export.compress import compress
from export.mil.evaluate import evaluate
from export.mil.load import load_package
from export.package import Part, convert, size, write_package
from export.tiled_ffn import TiledFfn
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
    return out, write_package(part, out, "fp16", lambda line: None)


def relative_error(package: Path, part: Part) -> float:
    found = np.asarray(evaluate(load_package(package).function(), part.inputs).outputs["y"])
    return float(np.linalg.norm(found - part.outputs["y"]) / np.linalg.norm(part.outputs["y"]))


def test_the_tiles_are_in_the_saved_package(written):
    operations = load_package(written[0] / "ffn.mlpackage").function().operations
    counts = Counter(op.op_type for op in operations)
    assert counts["conv"] == TILES * TILES + TILES
    assert counts["gelu"] == TILES
    assert counts["add"] == TILES * (TILES - 1) + TILES - 1
    assert max(op.outputs[0].shape[1] for op in operations if op.op_type == "gelu") == -(-HIDDEN // TILES)


def test_the_record_tells_the_files(written, part):
    out, record = written
    weights = out / "ffn.mlpackage" / "Data/com.apple.CoreML/weights/weight.bin"
    assert record["sha256"][str(weights.relative_to(out / "ffn.mlpackage"))] == (
        hashlib.sha256(weights.read_bytes()).hexdigest()
    )
    assert record["bytes"] == record["fp16_bytes"] == size(out / "ffn.mlpackage") > 2 * 2 * WIDTH * HIDDEN
    assert record["inputs"] == {"x": {"shape": [1, WIDTH, 1, 5], "dtype": "float16"}}
    with np.load(out / record["golden"]) as golden:
        assert set(golden) == {"input:x", "output:y"}
        np.testing.assert_array_equal(golden["output:y"], part.outputs["y"])


def test_the_package_computes_the_module(written, part):
    assert relative_error(written[0] / "ffn.mlpackage", part) < 2e-3


def test_compressed_weights_are_smaller_and_err_the_more(part, tmp_path, capfd):
    model = convert(part, tmp_path / "plain.mlpackage")
    sizes, errors = [], []
    for weights in ("int8", "palette6", "palette4"):
        path = tmp_path / f"{weights}.mlpackage"
        compress(model, weights).save(str(path))
        sizes.append(size(path))
        errors.append(relative_error(path, part))
    assert size(tmp_path / "plain.mlpackage") > sizes[0] > sizes[1] > sizes[2]
    assert 2e-3 < errors[0] < errors[1] < errors[2] < 0.2
    assert capfd.readouterr() == ("", "")


def test_unknown_weights_are_refused(part, tmp_path):
    with pytest.raises(UserError, match="weights 'int3' are unknown: use one of fp16, int8, palette8"):
        write_package(part, tmp_path, "int3", lambda line: None)
