"""Reference inputs and outputs of a package or an asset in an .npz file."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_video_jax.core.errors import UserError

INPUT, OUTPUT = "input:", "output:"


@dataclass(frozen=True)
class Feature:
    """The shape and type of an input or an output; a size that a package leaves open is None."""

    shape: tuple[int | None, ...]
    dtype: np.dtype

    def fits(self, shape: Sequence[int]) -> bool:
        """True where a shape is the declared one."""
        return len(shape) == len(self.shape) and all(
            declared in (None, size) for declared, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Golden:
    """Reference arrays by feature name."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def read_golden(path: Path, inputs: Mapping[str, Feature], outputs: Mapping[str, Feature]) -> Golden:
    """Reads keys input:FEATURE and output:FEATURE, for all inputs and outputs of a function.

    Raises UserError for a file that is no .npz, and for names, shapes or types that are not the function's.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            golden = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is no .npz file of plain arrays ({error}): write it with numpy.savez") from error
    expected = {INPUT + name: feature for name, feature in inputs.items()}
    expected |= {OUTPUT + name: feature for name, feature in outputs.items()}
    if golden.keys() != expected.keys():
        missing, unknown = sorted(expected.keys() - golden.keys()), sorted(golden.keys() - expected.keys())
        faults = [f"lacks {', '.join(missing)}"] * bool(missing)
        faults += [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise UserError(f"{path} {' and '.join(faults)}: its keys are to be {', '.join(expected)}")
    for key, feature in expected.items():
        _require_fit(f"{path}: {key}", golden[key], feature)
    parts = {
        kind: {key.removeprefix(kind): array for key, array in golden.items() if key.startswith(kind)}
        for kind in (INPUT, OUTPUT)
    }
    return Golden(parts[INPUT], parts[OUTPUT])


def write_golden(path: Path, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
    """Writes arrays under input:NAME and output:NAME."""
    arrays = {f"{INPUT}{name}": x for name, x in inputs.items()} | {f"{OUTPUT}{name}": x for name, x in outputs.items()}
    path.parent.mkdir(exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)


def _require_fit(key: str, array: np.ndarray, feature: Feature) -> None:
    if not feature.fits(array.shape):
        raise UserError(f"{key} is of shape {list(array.shape)}, the package's of {list(feature.shape)}")
    if not np.can_cast(array.dtype, feature.dtype, "same_kind"):
        raise UserError(f"{key} is of type {array.dtype}, the package's of {feature.dtype}")
