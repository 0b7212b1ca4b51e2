"""The error of outputs against the reference's, and its limits."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

# The PSNR in dB of equal outputs, so that the figure stays a number.
EXACT_PSNR = 200.0
# Rounding every value to fp16 costs transformers and decoders that are right 4e-4 to 1.4e-3, measured.
LARGEST_RELATIVE_ERROR = 2e-3
# The PSNR in dB below which Apple's converters refuse a diffusion model (ml-stable-diffusion, DiffusionKit).
LEAST_PSNR = 35.0


@dataclass(frozen=True)
class Agreement:
    """||output - reference|| / ||reference||, and the peak signal-to-noise ratio in dB.

    The peak is the reference's largest magnitude, as in Apple's ml-stable-diffusion (torch2coreml.py, compute_psnr).
    """

    relative_error: float
    psnr: float


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


def passes(outputs: Mapping[str, Agreement], compressed: bool) -> bool:
    """True where every output has a PSNR of 35 dB and, unless weights are compressed, a relative error of 2e-3."""
    return all(
        each.psnr >= LEAST_PSNR and (compressed or each.relative_error <= LARGEST_RELATIVE_ERROR)
        for each in outputs.values()
    )


def figures(outputs: Mapping[str, Agreement]) -> dict[str, Any]:
    """The worst relative error and PSNR, and those of each output; a figure that is not finite is None."""
    return {
        "relative_error": _finite(np.max([each.relative_error for each in outputs.values()])),
        "psnr": _finite(np.min([each.psnr for each in outputs.values()])),
        "outputs": as_json(outputs),
    }


def as_json(outputs: Mapping[str, Agreement]) -> dict[str, Any]:
    """The figures of each output; one that is not finite is None."""
    return {name: {key: _finite(value) for key, value in asdict(each).items()} for name, each in outputs.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
