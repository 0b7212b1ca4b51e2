"""Turns a run into Core ML packages for iOS 18: python -m export.run --model=RUN --out=DIR [--tiles=4 --weights=fp16]

A transformer's run becomes text.mlpackage, dit.mlpackage (or dit_0, dit_1, … where it is large), vae_first.mlpackage
and vae_next.mlpackage; a VAE's run the last two. Beside them: golden/NAME.npz, inputs and what JAX makes of them;
PyTorch weights, NAME.safetensors; tokenizer.json; manifest.json, all that an app needs to know.
"""

import functools
import sys
from pathlib import Path

from absl import flags

from export.folder import Settings, export_run
from export.form import FORMS
from launch import cli
from mobile_video_jax.core.errors import UserError

MODEL = flags.DEFINE_string("model", None, "The run directory of a transformer or a VAE.", required=True)
OUT = flags.DEFINE_string("out", None, "A new folder for the packages.", required=True)
VAE = flags.DEFINE_string("vae", None, "A VAE run whose decoder is exported instead, such as a smaller one for phones.")
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "", "Where the run's text encoder lies: clip:FOLDER or t5:FOLDER.")
CLIP = flags.DEFINE_string("clip", "", "Frames x height x width of the clips; the run's own if empty.")
STEPS = flags.DEFINE_integer("steps", 4, "Sampling steps whose times the manifest lists.", lower_bound=1)
TILES = flags.DEFINE_list("tiles", ["4"], "Tiles of each FFN product (1: whole), one number or one for each block.")
WEIGHTS = flags.DEFINE_string("weights", "fp16", "fp16, int8, palette8, palette6 or palette4.")
FORM = flags.DEFINE_enum("form", "phone", list(FORMS), "phone: for the neural engine; gpu: for GPU and CPU.")
LIMIT = flags.DEFINE_integer("chunk_megabytes", 1000, "The largest part of a transformer, in fp16.", lower_bound=1)


def main() -> None:
    if not all(text.isdigit() for text in TILES.value):
        raise UserError(f"--tiles={','.join(TILES.value)} is no list of whole numbers: use --tiles=4, or 1 for none")
    settings = Settings(
        WEIGHTS.value,
        tuple(map(int, TILES.value)),
        STEPS.value,
        LIMIT.value,
        Path(VAE.value) if VAE.value else None,
        CLIP.value,
        TEXT_ENCODER.value,
        FORM.value,
    )
    out = Path(OUT.value)
    manifest = export_run(Path(MODEL.value), out, settings, functools.partial(print, file=sys.stderr, flush=True))
    sizes = {package["name"]: package["bytes"] for package in manifest["packages"]}
    cli.finish(out, {"out": str(out), "packages": sizes, "bytes": sum(sizes.values())})


if __name__ == "__main__":
    cli.run(main)
