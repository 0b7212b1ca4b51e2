"""Executes a saved Core ML package or Core AI asset on this machine, and compares it with reference outputs.

python -m export.verify --package=FILE.mlpackage --inputs=FILE.npz [--function=NAME] [--flush_to_zero] [--json]
  The .npz holds input:FEATURE and output:FEATURE for every feature of the function, as export.run writes under golden/.
  Every op runs in float32 and is rounded to fp16 where the package says so; values near fp16's ends are warned of.
  An .aimodel is run by Apple's own runtime instead, which tells no ranges.
  On a Mac, Core ML itself then runs the package and tells where it places the ops and how long a call takes.

Status 1: the relative error of an output is above 2e-3 (compressed weights are exempt) or its PSNR below 35 dB.
"""

import json
import sys
from typing import Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say

PACKAGE = cli.require_path("package", "The .mlpackage or .aimodel folder.", local=True)
INPUTS = cli.require_path("inputs", "An .npz file of inputs and the outputs expected for them.", local=True)
FUNCTION = flags.DEFINE_string("function", None, "The function to run, of a package with several.")
FLUSH_TO_ZERO = flags.DEFINE_bool("flush_to_zero", False, "Replace subnormal fp16 numbers by 0, as some hardware does.")
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")

WRONG = 1
MISSING = "PyTorch or coremltools is missing: pip install -e '.[export]'"


def main() -> None:
    try:
        from export.mil.verify import verify_package
    except ImportError as error:
        raise UserError(MISSING) from error
    if PACKAGE.value.suffix == ".aimodel":
        return finish(asset_summary())
    say(f"{PACKAGE.value}: running each op")
    verification = verify_package(PACKAGE.value, INPUTS.value, FUNCTION.value, FLUSH_TO_ZERO.value)
    for warning in verification.warnings:
        say(f"warning: {warning}")
    summary = verification.summary()
    if sys.platform == "darwin":
        from export.mil.on_mac import add_core_ml

        summary = add_core_ml(verification, summary)
    finish(summary)


def asset_summary() -> dict[str, Any]:
    """Runs a Core AI asset. Raises UserError where Core AI's packages are missing."""
    from export.app import assets

    if not assets.installed():
        raise UserError(f"an .aimodel takes packages that are not installed: {assets.HOW}")
    from export.coreai.verify import verify_asset

    say(f"{PACKAGE.value}: running in Core AI")
    return verify_asset(PACKAGE.value, INPUTS.value, FUNCTION.value).summary()


def finish(summary: dict[str, Any]) -> None:
    """Prints the figures and ends, with status 1 where one is beyond its limit."""
    from export.mil.verify import as_text

    if JSON.value:
        print(json.dumps(summary))
    else:
        print(as_text(summary))
        cli.finish(PACKAGE.value, summary)
    sys.exit(0 if summary["passed"] else WRONG)


if __name__ == "__main__":
    cli.run(main)
