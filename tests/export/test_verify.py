"""The verifier's verdicts, and its one line for what does not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.agreement import EXACT_PSNR, Agreement, agreement, passes
from export.golden import Golden
from export.mil import on_mac
from export.mil.load import Package
from export.mil.verify import Verification, as_text, verify_package
from mobile_video_jax.core.errors import UserError
from tests import commands
from tests.export.mil.mil_programs import NOISE, function_of, mb, save

pytestmark = pytest.mark.filterwarnings(*NOISE)

X = np.random.default_rng(0).standard_normal((2, 8), np.float32)
IDS = np.array([[3, 0]], np.int32)
GOLDEN = {"input:x": X, "input:ids": IDS, "output:root": np.sqrt(X**2 + 1), "output:rows": X.T[IDS]}


def program(x: Any, ids: Any) -> Any:
    root = mb.sqrt(x=mb.add(x=mb.square(x=x), y=np.float16(1)), name="root")
    return root, mb.gather(x=mb.transpose(x=x, perm=[1, 0]), indices=ids, axis=0, name="rows")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "small.mlpackage"
    return save(function_of(program, {"x": X, "ids": IDS}, fp16=True), path)


def write(path: Path, **changes: Any) -> Path:
    """The golden file; a change of None leaves its key out."""
    arrays = {key: array for key, array in (GOLDEN | changes).items() if array is not None}
    np.savez(path, **arrays)
    return path


def test_a_right_package_passes(package: Path, tmp_path: Path):
    verification = verify_package(package, write(tmp_path / "golden.npz"))
    summary = verification.summary()
    assert summary["passed"] and not summary["compressed"] and summary["function"] == "main"
    assert summary["outputs"].keys() == {"root", "rows"}
    assert summary["largest"]["value"] == pytest.approx((X**2).max() + 1, rel=1e-3)
    assert 1e-5 < summary["relative_error"] < 1e-3 and 60 < summary["psnr"] < 100
    assert summary["bytes"] == sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def test_the_figures():
    reference = np.array([3, 4, 0, 0], np.float32)
    near = agreement(reference, reference + np.float32([0, 0, 0, 0.5]))
    assert (near.relative_error, near.psnr) == pytest.approx((0.1, 20 * np.log10(4 / 0.25)))
    assert agreement(reference, reference) == Agreement(0.0, EXACT_PSNR)
    assert agreement(0 * reference, reference) == Agreement(np.inf, -np.inf)
    assert np.isnan(agreement(reference, reference * np.nan).psnr)


@pytest.mark.parametrize(
    ("error", "psnr", "compressed", "passed"),
    [
        (2e-3, 35.0, False, True),
        (2.1e-3, 60.0, False, False),
        (1e-3, 34.9, False, False),
        (0.1, 35.0, True, True),
        (0.1, 34.9, True, False),
        (np.nan, np.nan, True, False),
    ],
)
def test_the_gates(error: float, psnr: float, compressed: bool, passed: bool):
    assert passes({"a": Agreement(0.0, EXACT_PSNR), "b": Agreement(error, psnr)}, compressed) == passed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input:x": None, "input:y": X}, "lacks input:x and has unknown input:y: its keys are to be"),
        ({"output:rows": None}, "lacks output:rows"),
        ({"input:x": X[:1]}, r"input:x is of shape \[1, 8\], the package's of \[2, 8\]"),
        ({"output:root": X[0]}, r"output:root is of shape \[8\]"),
        ({"input:ids": IDS.astype(np.float32)}, "input:ids is of type float32, the package's of int32"),
        ({"input:x": np.array([[object()]])}, "is no .npz file of plain arrays"),
    ],
)
def test_a_golden_file_of_another_model_is_refused(
    changes: dict[str, Any], message: str, package: Path, tmp_path: Path
):
    with pytest.raises(UserError, match=message):
        verify_package(package, write(tmp_path / "golden.npz", **changes))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY\x01\x00"])
def test_what_is_no_golden_file_is_refused(content: bytes, package: Path, tmp_path: Path):
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(UserError, match="golden.npz is no .npz file"):
        verify_package(package, tmp_path / "golden.npz")


def test_the_command_ends_with_its_figures_and_a_wrong_output_is_status_1(package: Path, tmp_path: Path):
    golden = write(tmp_path / "golden.npz", **{"output:rows": 1.01 * GOLDEN["output:rows"]})
    done = commands.run("export.verify", f"--package={package}", f"--inputs={golden}")
    assert done.status == 1, done.err
    assert "failed" in done.out and done.out.splitlines()[-2] == str(package)
    summary = json.loads(done.out.splitlines()[-1])
    assert not summary["passed"]
    assert summary["outputs"]["rows"]["relative_error"] > 2e-3 > summary["outputs"]["root"]["relative_error"]
    assert done.err == f"{package}: running each op\n"


def test_placement_counts_ops_and_cost_by_unit():
    class MLNeuralEngineComputeDevice:
        pass

    assert on_mac.unit_name(MLNeuralEngineComputeDevice()) == "NeuralEngine"
    planned = [("NeuralEngine", 0.5), (None, 0.0), ("CPU", 0.25), ("NeuralEngine", 0.25)]
    assert on_mac.placement(planned) == {"NeuralEngine": {"ops": 2, "cost": 0.75}, "CPU": {"ops": 1, "cost": 0.25}}


@pytest.mark.parametrize(("error", "passed"), [(0.01, True), (0.1, False)])
def test_core_ml_is_held_to_the_psnr(error: float, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    golden = Golden({}, {"y": np.ones(4, np.float32)})
    verification = Verification(
        package=Package(tmp_path, {}, "main"),
        function="main",
        golden=golden,
        outputs={"y": Agreement(0.0, EXACT_PSNR)},
        compressed=False,
        largest=None,
        warnings=[],
    )
    run = on_mac.CoreMlRun({"y": (1 + error) * golden.outputs["y"]}, 0.002, on_mac.placement([("GPU", 1.0)]))
    monkeypatch.setattr(on_mac, "run_core_ml", lambda _: run)
    summary = on_mac.add_core_ml(verification, verification.summary())
    assert summary["passed"] == passed
    assert "Core ML: 2.00 ms a call\n  GPU: 1 ops, 100% of the cost" in as_text(summary)
