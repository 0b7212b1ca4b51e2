"""The demo's last stage: the distilled model as packages for phones, made and checked by export.run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json

NEEDED = ("torch", "coremltools")


def check_export() -> None:
    """Raises UserError where what export.run needs is not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"{' and '.join(missing)} missing, which the demo ends with: pip install -e '.[export]'")


def export_packages(run: Path, out: Path, prompt: str) -> dict[str, Any]:
    """Exports a run to `out`, unless that is done already, and returns what its report.json holds.

    In a process of its own, on the CPU: only export/ knows PyTorch. Raises UserError where a package or the clip that
    all of them generate is not what JAX computes.
    """
    report = out / "report.json"
    if not report.is_file():
        command = [sys.executable, "-m", "export.run", f"--model={run}", f"--out={out}", f"--prompt={prompt}"]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        if not report.is_file():
            raise UserError(f"{run} was not exported: see the line above, then start again")
    figures: dict[str, Any] = {"assets": [], **read_json(report)}  # older versions wrote none
    if not figures["passed"]:
        raise UserError(f"the packages are not what JAX computes, see {out / 'report.html'}: {figures['failures'][0]}")
    return figures


def drawn_clip(out: Path, clip: str) -> dict[str, Frames]:
    """The export's clip by `jax`, by Core ML's `packages` and, where Core AI is installed, by its `assets`."""
    with np.load(out / "drawn" / f"{clip}.npz", allow_pickle=False) as arrays:
        return dict(arrays)
