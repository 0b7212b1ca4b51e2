"""Reference inputs and outputs of a package in an .npz file, and the error of a run against them."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import types
from jaxtyping import Shaped

from export.mil.evaluate import fits
from export.mil.ops.state import is_state
from mobile_video_jax.core.errors import UserError

INPUT, OUTPUT = "input:", "output:"
# The PSNR in dB of equal outputs, so that the figure stays a number.
EXACT_PSNR = 200.0


@dataclass(frozen=True)
class Golden:
    """Reference arrays by feature name."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """||output - reference|| / ||reference||, and the peak signal-to-noise ratio in dB.

    The peak is the reference's largest magnitude, as in Apple's ml-stable-diffusion (torch2coreml.py, compute_psnr).
    """

    relative_error: float
    psnr: float


def read_golden(path: Path, function: Any) -> Golden:
    """Reads keys input:FEATURE and output:FEATURE, for all inputs and outputs of the function.

    Raises UserError for a file that is no .npz, and for names, shapes or types that are not the function's.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            golden = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is no .npz file of plain arrays ({error}): write it with numpy.savez") from error
    expected = {INPUT + name: var for name, var in function.inputs.items() if not is_state(var)}
    expected |= {OUTPUT + var.name: var for var in function.outputs}
    if golden.keys() != expected.keys():
        missing, unknown = sorted(expected.keys() - golden.keys()), sorted(golden.keys() - expected.keys())
        faults = [f"lacks {', '.join(missing)}"] * bool(missing)
        faults += [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise UserError(f"{path} {' and '.join(faults)}: its keys are to be {', '.join(expected)}")
    for key, var in expected.items():
        _require_fit(f"{path}: {key}", golden[key], var)
    parts = {
        kind: {key.removeprefix(kind): array for key, array in golden.items() if key.startswith(kind)}
        for kind in (INPUT, OUTPUT)
    }
    return Golden(parts[INPUT], parts[OUTPUT])


def agreement(reference: Shaped[np.ndarray, "*s"], output: Shaped[np.ndarray, "*s"]) -> Agreement:
    """The error of an output; not-a-number in either array gives not-a-number."""
    expected = reference.astype(np.float64)
    error = output.astype(np.float64) - expected
    norm, distance = float(np.linalg.norm(expected)), float(np.linalg.norm(error))
    if distance == 0:
        return Agreement(0.0, EXACT_PSNR)
    peak, rms = float(np.abs(expected).max()), distance / math.sqrt(error.size)
    if norm == 0:
        return Agreement(math.inf, -math.inf)
    return Agreement(distance / norm, min(20 * math.log10(peak / rms), EXACT_PSNR))


def agreements(reference: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> dict[str, Agreement]:
    """The error of each output, by its name."""
    return {name: agreement(array, outputs[name]) for name, array in reference.items()}


def _require_fit(key: str, array: np.ndarray, var: Any) -> None:
    if not fits(var, array.shape):
        raise UserError(f"{key} is of shape {list(array.shape)}, the package's of {list(var.shape)}")
    if not np.can_cast(array.dtype, types.nptype_from_builtin(var.dtype), "same_kind"):
        raise UserError(f"{key} is of type {array.dtype}, the package's of {types.builtin_to_string(var.dtype)}")
