"""Turns a run into Core ML packages for iOS 18: python -m export.run --model=RUN --out=DIR [--tiles=4 --weights=fp16]

A transformer's run becomes text.mlpackage, dit.mlpackage (or dit_0, dit_1, … where it is large), vae_first.mlpackage
and vae_next.mlpackage; a VAE's run the last two. LTX-Video's decoder, which looks ahead, is one vae.mlpackage for a
whole clip. Beside them: golden/NAME.npz, inputs and what JAX makes of them; PyTorch weights, NAME.safetensors;
tokenizer.json; manifest.json, all that an app needs to know; report.html and report.json. Every package is then run op
by op and compared with JAX, and so is a whole clip drawn by all of them.

--format=diffusers writes a run of LTX-Video's shapes, imported or trained further, as a pipeline's folder instead.

Status 1: a package or the clip is not what JAX computes (see export.verify); the folder is kept.
"""

import sys
from pathlib import Path

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.interop.export_diffusers import export_diffusers
from mobile_video_jax.text.encoder_name import EncoderName

MODEL = flags.DEFINE_string("model", None, "The run directory of a transformer or a VAE.", required=True)
OUT = flags.DEFINE_string("out", None, "A new folder for the packages.", required=True)
VAE = flags.DEFINE_string("vae", None, "A VAE run whose decoder is exported instead, such as a smaller one for phones.")
FORMAT = flags.DEFINE_enum("format", "coreml", ["coreml", "diffusers"], "Packages, or the folder of a pipeline.")
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float16"], "With --format=diffusers: of weights."
)
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "", "Where the run's text encoder lies: KIND:FOLDER.")
CLIP = flags.DEFINE_multi_string(
    "clip", [], "Frames x height x width of the clips, the run's own if not given; several become functions."
)
STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Sampling steps whose times the manifest lists; a distilled run's own if not given, or 4.",
    lower_bound=1,
)
TILES = flags.DEFINE_list("tiles", ["4"], "Tiles of each FFN product (1: whole), one number or one for each block.")
WEIGHTS = flags.DEFINE_string("weights", "fp16", "fp16, int8, palette8, palette6, palette4 or mixed.")
TARGET_BITS = flags.DEFINE_float("target_bits", None, "Bits a weight that mixed weights take on average; 6 if not set.")
TARGET_PSNR = flags.DEFINE_float("target_psnr", None, "PSNR in dB that every package of mixed weights reaches instead.")
FORM = flags.DEFINE_enum("form", "phone", ["phone", "gpu"], "phone: for the neural engine; gpu: for GPU and CPU.")
LIMIT = flags.DEFINE_integer("chunk_megabytes", 1000, "The largest part of a transformer, in fp16.", lower_bound=1)
PROMPT = flags.DEFINE_string("prompt", "a red circle", "What the golden arrays and the clip are of.")
CHECK = flags.DEFINE_enum(
    "check", "clip", ["clip", "packages", "one"], "Run all packages and a whole clip, packages alone, or one of them."
)

WRONG = 1


def main() -> None:
    if FORMAT.value == "diffusers":
        return write_diffusers()
    if not all(text.isdigit() for text in TILES.value):
        raise UserError(f"--tiles={','.join(TILES.value)} is no list of whole numbers: use --tiles=4, or 1 for none")
    try:
        from export.app.folder import Settings, export_run
        from export.coreml.compress import Weights
    except ImportError as error:
        raise UserError("PyTorch or coremltools is missing: pip install -e '.[export]'") from error
    settings = Settings(
        weights=Weights(WEIGHTS.value, TARGET_BITS.value, TARGET_PSNR.value),
        tiles=tuple(map(int, TILES.value)),
        steps=STEPS.value or 0,
        chunk_megabytes=LIMIT.value,
        vae=storage_path(VAE.value) if VAE.value else None,
        clips=tuple(CLIP.value),
        text_encoder=TEXT_ENCODER.value,
        form=FORM.value,
        prompt=PROMPT.value,
        check=CHECK.value,
    )
    out = Path(OUT.value)
    report = export_run(storage_path(MODEL.value), out, settings, say)
    rows = [{key: row[key] for key in ("name", "relative_error", "psnr", "bytes")} for row in report["packages"]]
    cli.finish(out, {"out": str(out), "packages": rows, "clips": report["clips"], "passed": report["passed"]})
    if not report["passed"]:
        say(f"failed: {'; '.join(report['failures'])}")
        sys.exit(WRONG)


def write_diffusers() -> None:
    encoder = EncoderName.parse(TEXT_ENCODER.value) if TEXT_ENCODER.value else None
    if encoder and encoder.kind != "ltx":
        raise UserError(f"--text_encoder={TEXT_ENCODER.value} is none of a pipeline: use ltx:FOLDER, or leave it out")
    run, out, text = storage_path(MODEL.value), Path(OUT.value), encoder.folder if encoder else None
    cli.finish(out, export_diffusers(run, out, dtype=DTYPE.value, text=text))


if __name__ == "__main__":
    cli.run(main)
