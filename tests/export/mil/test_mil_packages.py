"""What is loaded from disk computes what was saved: compressed weights, states, several functions, damage."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as compress
import numpy as np
import pytest
import torch
from coremltools.optimize._utils import lut_to_dense as reference
from torch import nn

from export.mil.evaluate import evaluate
from export.mil.load import load_package
from export.mil.ops.constexpr import lut_to_dense
from export.mil.ops.state import zero_states
from mobile_video_jax.core.errors import UserError
from tests.export.mil.mil_programs import NOISE, convert, function_of, mb, save, types

pytestmark = pytest.mark.filterwarnings(*NOISE)

X = np.random.default_rng(0).standard_normal((3, 64), np.float32)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.down = nn.Linear(64, 128), nn.LayerNorm(128), nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.norm(self.up(x))))


@pytest.fixture(scope="module")
def block() -> Block:
    return Block().eval()


@pytest.fixture(scope="module")
def model(block: Block) -> Any:
    traced = torch.jit.trace(block, torch.tensor(X))
    half = {"dtype": np.float16}
    return convert(traced, inputs=[ct.TensorType("x", X.shape, **half)], outputs=[ct.TensorType("y", **half)])


@pytest.fixture(scope="module")
def package(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model.save(str(path := tmp_path_factory.mktemp("packages") / "block.mlpackage"))
    return path


def error(path: Path, block: Block) -> float:
    expected = block(torch.tensor(X)).detach().numpy()
    outputs = evaluate(load_package(path).function(), {"x": X}).outputs["y"].astype(np.float32)
    return float(np.linalg.norm(outputs - expected) / np.linalg.norm(expected))


def test_a_saved_module_equals_pytorch(package: Path, block: Block):
    assert 1e-5 < error(package, block) < 1e-3


def palettes(**options: Any) -> tuple[Callable[..., Any], Any]:
    return compress.palettize_weights, compress.OpPalettizerConfig(mode="uniform", **options)


def linear(**options: Any) -> tuple[Callable[..., Any], Any]:
    return compress.linear_quantize_weights, compress.OpLinearQuantizerConfig(**options)


COMPRESSED = {
    "6-bit palette": palettes(nbits=6),
    "4-bit palettes of 16 channels": palettes(nbits=4, granularity="per_grouped_channel", group_size=16),
    "int8": linear(),
    "uint4 in blocks": linear(mode="linear", dtype="uint4", granularity="per_block", block_size=32),
    "half pruned": (compress.prune_weights, compress.OpMagnitudePrunerConfig(target_sparsity=0.5)),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_weights_equal_those_decompressed_by_coremltools(
    name: str, model: Any, package: Path, tmp_path: Path
):
    function, options = COMPRESSED[name]
    small = function(model, compress.OptimizationConfig(options))
    small.save(str(tmp_path / "small.mlpackage"))
    compress.decompress_weights(small).save(str(tmp_path / "large.mlpackage"))
    compressed, decompressed = (load_package(tmp_path / f"{each}.mlpackage") for each in ("small", "large"))
    kinds = {op.op_type for op in compressed.function().operations}
    assert any(kind.startswith("constexpr_") for kind in kinds)
    assert compressed.bytes < 0.75 * load_package(package).bytes
    outputs = [evaluate(each.function(), {"x": X}).outputs["y"] for each in (compressed, decompressed)]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    ("groups", "length", "axis"), [((1, 1), 1, None), ((2, 3), 1, None), ((2, 1), 3, -2), ((1, 3), 2, 1)]
)
def test_palettes_of_groups_and_vectors(groups: tuple[int, ...], length: int, axis: int | None):
    """As coremltools decompresses them, which takes a whole table for every index."""
    rng = np.random.default_rng(0)
    indices, lut = rng.integers(0, 4, (4, 6), np.uint8), rng.standard_normal((*groups, 4, length), np.float32)
    np.testing.assert_array_equal(lut_to_dense(indices, lut, axis), reference(indices, lut, axis))


def test_states_go_on_from_call_to_call(tmp_path: Path):
    """A running sum: read, add, update, return."""

    def build(x: Any, total: Any) -> Any:
        return mb.coreml_update_state(state=total, value=mb.add(x=mb.read_state(input=total), y=x), name="sum")

    x = np.array([1, 2, 3], np.float32)
    placeholders = {
        "x": mb.placeholder(x.shape, types.fp16),
        "total": mb.state_tensor_placeholder(x.shape, types.fp16),
    }
    with ct.converters.mil.mil.Function(placeholders, opset_version=ct.target.iOS18) as function:
        function.set_outputs([build(**function.inputs)])
    loaded = load_package(save(function, tmp_path / "sum.mlpackage")).function()
    states = zero_states(loaded)
    assert states.keys() == {"total"}
    for calls in (1, 2, 3):
        (output,) = evaluate(loaded, {"x": x}, states).outputs.values()
        np.testing.assert_array_equal(output, calls * x)
    assert evaluate(loaded, {"x": x}).outputs.popitem()[1].tolist() == x.tolist()


def test_functions_are_chosen_by_name(tmp_path: Path):
    for name, op in (("twice", lambda x: mb.mul(x=x, y=2.0)), ("square", lambda x: mb.square(x=x))):
        save(function_of(op, {"x": X}), tmp_path / f"{name}.mlpackage")
    both = ct.utils.MultiFunctionDescriptor()
    for name in ("twice", "square"):
        both.add_function(str(tmp_path / f"{name}.mlpackage"), "main", name)
    both.default_function_name = "square"
    ct.utils.save_multifunction(both, str(tmp_path / "both.mlpackage"))
    loaded = load_package(tmp_path / "both.mlpackage")
    expected = {None: X**2, "square": X**2, "twice": 2 * X}
    for name, values in expected.items():
        (output,) = evaluate(loaded.function(name), {"x": X}).outputs.values()
        np.testing.assert_allclose(output, values, rtol=2e-3)
    with pytest.raises(UserError, match="no function cube: name one of square, twice"):
        loaded.function("cube")


MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("Manifest.json", lambda content: content[:20]),
        ("Manifest.json", None),
        (MODEL, lambda content: content[: len(content) // 2]),
        (MODEL, lambda _: b""),
        (MODEL, None),
        (WEIGHTS, lambda content: content[: len(content) // 2]),
        (WEIGHTS, lambda content: bytes(len(content))),
        (WEIGHTS, None),
    ],
)
def test_a_damaged_package_is_one_line(
    file: str, change: Callable[[bytes], bytes] | None, package: Path, tmp_path: Path
):
    path = Path(shutil.copytree(package, tmp_path / "damaged.mlpackage")) / file
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    with pytest.raises(UserError, match="damaged"):
        load_package(tmp_path / "damaged.mlpackage")


def test_what_is_no_program_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is no .mlpackage folder"):
        load_package(tmp_path / "nothing.mlpackage")
    network = ct.proto.Model_pb2.Model(specificationVersion=4)
    network.neuralNetwork.SetInParent()
    (tmp_path / "folder").mkdir()
    ct.utils.save_spec(network, str(tmp_path / "old.mlpackage"), weights_dir=str(tmp_path / "folder"))
    with pytest.raises(UserError, match="holds no ML program but neuralNetwork"):
        load_package(tmp_path / "old.mlpackage")


def test_an_op_that_coremltools_lacks_is_named(package: Path, tmp_path: Path):
    shutil.copytree(package, tmp_path / "new.mlpackage")
    spec = ct.utils.load_spec(str(package))
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    next(op for op in block.operations if op.type == "gelu").type = "swish_9000"
    (tmp_path / "new.mlpackage" / MODEL).write_bytes(spec.SerializeToString())
    with pytest.raises(UserError, match=r"op swish_9000 \(output .*\) that coremltools 9.0 lacks"):
        load_package(tmp_path / "new.mlpackage")
