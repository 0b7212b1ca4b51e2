"""Estimates how long a clip or a package takes on an iPhone 16 Pro Max.

An estimate, no measurement: no phone was used.

python -m export.phone_estimate --config=configs/dit.py:mobile [--clip=49x384x512] [--steps=4] [--tiles=1]
    [--weights=fp16] [--decoder=mobile] [--json]
  Counts the ops of the phone's form of the transformer and of its VAE's decoder from shapes alone.
python -m export.phone_estimate --model=RUN [--decoder=mobile] [--json]
  The same for a run: its clips, in its own steps, each of which computes what the run's table says.
python -m export.phone_estimate --package=FILE.mlpackage [--function=NAME] [--json]
  Counts the ops of a saved package.
python -m export.phone_estimate --calibrate [--json]
  Fits the two free factors to published times again, and estimates each network by a fit to the others. Takes
  diffusers, which is in the extra `dev`.

Each op takes the longer of its arithmetic and its traffic with memory; a tensor of up to 2 MB makes no traffic. The
range is what the fits were off by for networks that they had not seen. Text encoding is not counted.
"""

import json
from typing import Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Size, SolverSteps
from mobile_video_jax.stages.config import training_class
from mobile_video_jax.vae.family import SIZES

CONFIG = cli.define_config(training_class, "The transformer's config.", required=False)
MODEL = cli.define_path("model", "A run, in place of a config.", exists=True)
PACKAGE = cli.define_path("package", "The .mlpackage folder.", local=True)
FUNCTION = flags.DEFINE_string("function", None, "With --package: the function, of a package with several.")
CALIBRATE = flags.DEFINE_bool("calibrate", False, "Fit the shares to published times.")
CLIP = cli.define_clip("clip", "", "Frames x height x width; 49x384x512, or a run's own, if not given.")
STEPS: flags.FlagHolder[int | None] = cli.define_number(
    "steps", None, SolverSteps, "Sampling steps; 4, or a run's own, if not given."
)
TILES: flags.FlagHolder[int | None] = cli.define_number(
    "tiles", None, Size, "Tiles of an FFN's hidden channels; as many as are fastest by estimate, if not given."
)
WEIGHTS = flags.DEFINE_string("weights", "fp16", "fp16, int8, palette8, palette6, palette4 or mixed (of 6 bits).")
DECODER = flags.DEFINE_enum(
    "decoder",
    "mobile",
    [*SIZES, "wan"],
    "Size of the VAE's decoder, at the config's compression; wan: that of Wan's own VAE.",
)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def main() -> None:
    if sum(map(bool, (CONFIG.value, MODEL.value, PACKAGE.value, CALIBRATE.value))) != 1:
        raise UserError(
            "give one of --config=configs/dit.py:mobile, --model=RUN, --package=FILE.mlpackage and --calibrate"
        )
    try:
        from export.estimate import report
    except ImportError as error:
        raise UserError("PyTorch or coremltools is missing: pip install -e '.[export]'") from error
    if CALIBRATE.value:
        result, text = report.of_figures()
    elif PACKAGE.value:
        result, text = report.of_package(PACKAGE.value, FUNCTION.value)
    else:
        options: dict[str, Any] = {"decoder": DECODER.value, "tiles": TILES.value or 0, "weights": WEIGHTS.value}
        options |= {"clip": CLIP.value} if CLIP.value else {}
        options |= {"steps": STEPS.value} if STEPS.value else {}
        if MODEL.value:
            result, text = report.of_run(MODEL.value, **options)
        else:
            result, text = report.of_config(CONFIG.values, **options)
    print(json.dumps(result) if JSON.value else text + "\n" + json.dumps(result))


if __name__ == "__main__":
    cli.run(main, config=CONFIG)
