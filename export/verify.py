"""Executes a saved Core ML package on this machine, and compares it with reference outputs.

python -m export.verify --package=FILE.mlpackage --inputs=FILE.npz [--function=NAME] [--flush_to_zero] [--json]
  The .npz holds input:FEATURE and output:FEATURE for every feature of the function, as export.run writes under golden/.
  Every op runs in float32 and is rounded to fp16 where the package says so; values near fp16's ends are warned of.
  On a Mac, Core ML itself then runs the package and tells where it places the ops and how long a call takes.

Status 1: the relative error of an output is above 2e-3 (compressed weights are exempt) or its PSNR below 35 dB.
"""

import json
import sys

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say

PACKAGE = cli.require_path("package", "The .mlpackage folder.", local=True)
INPUTS = cli.require_path("inputs", "An .npz file of inputs and the outputs expected for them.", local=True)
FUNCTION = flags.DEFINE_string("function", None, "The function to run, of a package with several.")
FLUSH_TO_ZERO = flags.DEFINE_bool("flush_to_zero", False, "Replace subnormal fp16 numbers by 0, as some hardware does.")
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")

WRONG = 1
MISSING = "PyTorch or coremltools is missing: pip install -e '.[export]'"


def main() -> None:
    try:
        from export.mil.verify import as_text, verify_package
    except ImportError as error:
        raise UserError(MISSING) from error
    say(f"{PACKAGE.value}: running each op")
    verification = verify_package(PACKAGE.value, INPUTS.value, FUNCTION.value, FLUSH_TO_ZERO.value)
    for warning in verification.warnings:
        say(f"warning: {warning}")
    summary = verification.summary()
    if sys.platform == "darwin":
        from export.mil.on_mac import add_core_ml

        summary = add_core_ml(verification, summary)
    if JSON.value:
        print(json.dumps(summary))
    else:
        print(as_text(summary))
        cli.finish(PACKAGE.value, summary)
    sys.exit(0 if summary["passed"] else WRONG)


if __name__ == "__main__":
    cli.run(main)
