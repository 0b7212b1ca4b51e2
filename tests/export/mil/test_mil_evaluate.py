"""Values are rounded as the package declares, and what comes near fp16's ends is told."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch

from export.mil import evaluate as evaluate_module
from export.mil.evaluate import evaluate
from export.mil.ranges import LARGEST, SMALLEST_NORMAL
from mobile_video_jax.core.errors import UserError
from tests.export.mil.mil_programs import function_of, mb

X = np.random.default_rng(0).standard_normal((3, 8), np.float32)


def norm(x: Any, scale: float = 1.0) -> Any:
    """RMS norm; scaling before the squares keeps large activations inside fp16."""
    small = mb.mul(x=x, y=np.float16(scale))
    mean = mb.reduce_mean(x=mb.mul(x=small, y=small), axes=[-1], keep_dims=True)
    return mb.mul(x=small, y=mb.rsqrt(x=mb.add(x=mean, y=np.float16(1e-4)), epsilon=np.float16(0)), name="out")


def test_every_fp16_value_is_rounded_and_sums_are_not():
    """1 + 2^-12 is 1 in fp16, as an input and as a result; a sum of 2^-12 over 4,096 values is exact inside its op."""
    small = np.float32(2.0**-12)
    ones = np.stack([np.full((4096,), 1 + small), np.full((4096,), small)]).astype(np.float32)
    build = lambda x: (mb.sub(x=x, y=np.float16(1)), mb.reduce_sum(x=x, axes=[-1]), mb.add(x=x, y=np.float16(1)))
    difference, total, above = evaluate(function_of(build, {"x": ones}, fp16=True), {"x": ones}).outputs.values()
    assert difference.dtype == total.dtype == np.float16
    assert (difference[0] == 0).all() and (above[1] == 1).all() and total.tolist() == [4096, 1]


def test_large_activations_that_vanish_in_a_norm_are_told():
    """400^2 overflows, its reciprocal root is 0: all outputs are 0 and no number looks wrong."""
    x = {"x": np.full((1, 8), 400, np.float32)}
    evaluated = evaluate(function_of(norm, x, fp16=True), x)
    assert (evaluated.outputs["out"] == 0).all()
    assert any("mul mul_1: 8 values overflow fp16, the largest is 160000" in line for line in evaluated.warnings)
    scaled = evaluate(function_of(lambda x: norm(x, 1 / 64), x, fp16=True), x)
    assert not scaled.warnings and np.allclose(scaled.outputs["out"], 1, atol=2e-3)


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (1.0, None),
        (LARGEST / 1.5, "near fp16's end"),
        (SMALLEST_NORMAL / 4, "subnormal"),
        (np.float32(np.nan), "not numbers"),
    ],
    ids=["fine", "large", "subnormal", "nan"],
)
def test_warnings(factor: float, text: str | None):
    x = {"x": np.full((2, 2), factor, np.float32)}
    (warning,) = evaluate(function_of(lambda x: mb.identity(x=x), x, fp16=True), x).warnings[:1] or [None]
    assert warning is None if text is None else text in warning


def test_warnings_begin_with_the_first_op_that_fails_and_leave_out_lost_addends():
    x = {"x": np.float32([[1.0, 400.0]])}

    def build(x: Any) -> Any:
        tiny = mb.mul(x=x, y=np.float16(2.0**-24), name="tiny")  # is lost in the sum
        small = mb.mul(x=x, y=np.float16(2.0**-23), name="small")  # is an output
        large = mb.mul(x=x, y=np.float16(100), name="large")
        return mb.add(x=x, y=tiny), small, mb.mul(x=large, y=large, name="beyond"), mb.sub(x=large, y=x, name="near")

    warnings = evaluate(function_of(build, x, fp16=True), x).warnings
    names = [line.split(":")[0] for line in warnings if not line.startswith("const")]
    assert names == ["mul beyond", "mul large", "sub near", "mul small"]


def test_ranges_name_each_op():
    evaluated = evaluate(function_of(norm, {"x": X}, fp16=True), {"x": X})
    largest = {span.name: span.largest for span in evaluated.ranges}
    assert largest["x"] == np.abs(X).max() and largest["out"] == pytest.approx(
        np.abs(evaluated.outputs["out"]).max(), rel=1e-3
    )


def test_flush_to_zero():
    """Numbers below 2^-14 are read as 0: values, results and constants."""
    x = {"x": np.array([[SMALLEST_NORMAL / 2, SMALLEST_NORMAL, 1]], np.float32)}
    build = lambda x: (mb.identity(x=x), mb.mul(x=x, y=np.float16(2.0**-10)), mb.add(x=x, y=np.float16(2.0**-15)))
    function = function_of(build, x, fp16=True)
    plain, flushed = evaluate(function, x), evaluate(function, x, flush_to_zero=True)
    same, product, total = flushed.outputs.values()
    assert same.tolist() == [[0, SMALLEST_NORMAL, 1]]
    assert product.tolist() == [[0, 0, 2.0**-10]] and total[0, 0] == 0
    assert list(plain.outputs.values())[2][0, 0] == SMALLEST_NORMAL


def test_an_op_without_a_kernel_is_named():
    function = function_of(lambda x: mb.band_part(x=mb.abs(x=x), lower=1, name="band"), {"x": X})
    with pytest.raises(UserError, match=r"op band_part \(output band\) has no kernel"):
        evaluate(function, {"x": X})


def test_a_result_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(evaluate_module.KERNELS, "abs", lambda x: x[:1])
    function = function_of(lambda x: mb.abs(x=x, name="out"), {"x": X})
    with pytest.raises(UserError, match=r"op abs \(output out\) gives \[1, 8\], the package declares \[3, 8\]"):
        evaluate(function, {"x": X})


def test_values_are_freed_at_their_last_use(monkeypatch: pytest.MonkeyPatch):
    """Of a chain of ops only the value that the next one takes is there."""
    results: list[weakref.ref] = []
    alive = []

    def kernel(x: torch.Tensor) -> torch.Tensor:
        alive.append(sum(each() is not None for each in results))
        results.append(weakref.ref(result := x + 1))
        return result

    def chain(x: Any) -> Any:
        for _ in range(5):
            x = mb.abs(x=x)
        return x

    monkeypatch.setitem(evaluate_module.KERNELS, "abs", kernel)
    evaluate(function_of(chain, {"x": X}), {"x": X})
    assert alive == [0, 1, 1, 1, 1]
