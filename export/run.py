"""Turns a run into packages for iPhones: python -m export.run --model=RUN --out=DIR [--tiles=4 --weights=fp16]

Two backends: Core ML's packages (NAME.mlpackage) for iOS 18 to 26, and Core AI's assets (NAME.aimodel) for iOS 27.

A transformer's run becomes text.mlpackage, dit.mlpackage (or dit_0, dit_1, … where it is large), vae_first.mlpackage
and vae_next.mlpackage; a VAE's run the last two, which as an asset are the entry points first and next of vae.aimodel.
LTX-Video's decoder, which looks ahead in time, is one vae.mlpackage for a whole clip. A transformer whose steps do
without some modules is a function for each distinct step; with --stream a causal one is a function for the first frame
and one for each later chunk; with --widths an elastic one is a function for each width. The folder also holds
golden/NAME.npz, inputs and JAX's outputs for them (of an entry point golden/NAME_FUNCTION.npz); PyTorch weights,
NAME.safetensors; tokenizer.json; manifest.json, every constant that an app needs; report.html and report.json. Every
package is run op by op, every asset by Apple's runtime, and compared with JAX; so is a whole clip of each backend.

--format=diffusers writes a run of LTX-Video's or Wan's, imported or trained further, as a pipeline's folder instead;
--format=lora and lora_comfyui write its adapter alone, under diffusers' or the original release's names.

Status 1: a package or the clip is not what JAX computes (see export.verify); the folder is kept.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.config import checked
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.ranges import PositiveShare, Range, Size, SizeOrZero, SolverSteps
from mobile_video_jax.text.encoder_name import PIPELINE_TEXTS, EncoderName

if TYPE_CHECKING:
    from mobile_video_jax.models.run import Run

MODEL = cli.require_path("model", "The run directory of a transformer or a VAE.", exists=True)
CHECKPOINT = cli.define_checkpoint("model")
OUT = cli.require_path("out", "A new folder for the packages.", local=True)
VAE = cli.define_path("vae", "A VAE run whose decoder is exported instead, such as a smaller one.")
FORMAT = flags.DEFINE_enum(
    "format", "coreml", ["coreml", "diffusers", "lora", "lora_comfyui"], "Packages, a pipeline's folder, or an adapter."
)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of weights that are not packages.")
TEXT_ENCODER = cli.define_located("text_encoder", "", "Folder of the run's text encoder: KIND:FOLDER.")
TEXT_PRECISION = flags.DEFINE_enum(
    "text_precision", "fp16", ["fp16", "fp32"], "Of the text encoder; fp32 for a T5 whose values pass fp16's end."
)
CLIP = cli.define_clips(
    "clip", "Frames x height x width of the clips, the run's own if not given; several become functions."
)
STEPS: flags.FlagHolder[int | None] = cli.define_number(
    "steps", None, SolverSteps, "Sampling steps whose times the manifest lists; the run's own if not given, or 4."
)
TILES = flags.DEFINE_list(
    "tiles",
    [],
    "Tiles of each FFN (1: whole), one number or one for each block; the fastest by estimate, if not given.",
)
CUT_INPUTS = flags.DEFINE_bool(
    "cut_inputs", False, "Cut the inputs of both FFN products, as the paper: k^2 + k of them."
)
WEIGHTS = flags.DEFINE_string("weights", "fp16", "fp16, int8, palette8, palette6, palette4 or mixed.")
TARGET_BITS: flags.FlagHolder[float | None] = cli.define_number(
    "target_bits", None, Annotated[float, Range(1, 16)], "Bits a weight that mixed weights take on average; else 6."
)
TARGET_PSNR: flags.FlagHolder[float | None] = cli.define_number(
    "target_psnr", None, Annotated[float, Range(10, 120)], "PSNR in dB that every package of mixed weights reaches."
)
BACKEND = flags.DEFINE_list("backend", [], "coreml, coreai or both; if not given, those that are installed.")
AUTHOR = flags.DEFINE_string("author", "not stated", "The author, for the metadata of packages.")
LICENCE = flags.DEFINE_string("license", "not stated", "The licence of the weights, for the metadata of packages.")
WIDTHS = flags.DEFINE_list(
    "widths", [], "Widths of an elastic run, 0.5,0.75,1: functions of one package, which share its weights."
)
MAX_MEMORY = cli.define_number(
    "max_memory", 0, SizeOrZero, "Most megabytes that the weights of all --widths may take in fp16; 0: any."
)
STREAM = flags.DEFINE_bool(
    "stream", False, "Export a causal transformer as first and next chunk of a stream, not for whole clips."
)
FORM = flags.DEFINE_enum("form", "phone", ["phone", "gpu"], "phone: for the neural engine; gpu: for GPU and CPU.")
LIMIT = cli.define_number("chunk_megabytes", 1000, Size, "The largest part of a transformer, in fp16.")
PROMPT = flags.DEFINE_string("prompt", "a red circle", "Prompt of the golden arrays and of the clip.")
CHECK = flags.DEFINE_enum(
    "check",
    "clip",
    ["clip", "packages", "one"],
    "Verify all packages and a clip, packages alone, or one.",
)

WRONG = 1
# Flags that other formats have no use for.
OF_PACKAGES = (
    *("vae", "clip", "steps", "tiles", "cut_inputs", "weights", "target_bits", "target_psnr", "backend", "author"),
    *("license", "text_precision", "widths", "max_memory", "stream", "form", "chunk_megabytes", "prompt", "check"),
)


def main() -> None:
    from mobile_video_jax.core.claim import check_free
    from mobile_video_jax.train.run import read_run

    out = OUT.value
    tiles = checked(tuple[Size, ...], TILES.value, "--tiles")
    # Before PyTorch and the networks are imported, which takes seconds.
    check_free(out)
    read_run(MODEL.value)
    from mobile_video_jax.models.run import Run

    model = Run.open(MODEL.value, **CHECKPOINT.value)
    if FORMAT.value != "coreml" and (given := [name for name in OF_PACKAGES if flags.FLAGS[name].present]):
        raise UserError(f"--{given[0]} is for packages: leave it out with --format={FORMAT.value}")
    if FORMAT.value == "diffusers":
        return write_diffusers(model, out)
    if FORMAT.value in ("lora", "lora_comfyui"):
        return write_lora(model, out)
    try:
        from export.app import assets
        from export.app.folder import export_run
        from export.app.settings import Settings
        from export.coreml.compress import Weights
    except ImportError as error:
        raise UserError("PyTorch or coremltools is missing: pip install -e '.[export]'") from error
    settings = Settings(
        backends=assets.installed_backends(BACKEND.value, core_ai=assets.installed()),
        author=AUTHOR.value,
        licence=LICENCE.value,
        weights=Weights(WEIGHTS.value, TARGET_BITS.value, TARGET_PSNR.value),
        tiles=tiles,
        cut_inputs=CUT_INPUTS.value,
        steps=STEPS.value or 0,
        chunk_megabytes=float(LIMIT.value),
        vae=VAE.value,
        clips=tuple(CLIP.value),
        text_encoder=TEXT_ENCODER.value,
        text_precision=TEXT_PRECISION.value,
        stream=STREAM.value,
        widths=checked(tuple[PositiveShare, ...], WIDTHS.value, "--widths"),
        max_memory=float(MAX_MEMORY.value),
        form=FORM.value,
        prompt=PROMPT.value,
        check=CHECK.value,
    )
    report = export_run(model, out, settings, say)
    keys = ("name", "relative_error", "psnr", "bytes")
    rows = {kind: [{key: row[key] for key in keys} for row in report[kind]] for kind in ("packages", "assets")}
    summary = {key: report[key] for key in ("clips", "passed", "warnings")}
    cli.finish(out, {"out": str(out), **rows, **summary})
    if not report["passed"]:
        say(f"failed: {'; '.join(report['failures'])}")
        sys.exit(WRONG)


def write_diffusers(model: "Run", out: Path) -> None:
    from mobile_video_jax.interop.export_diffusers import export_diffusers

    encoder = EncoderName.parse(TEXT_ENCODER.value) if TEXT_ENCODER.value else None
    if encoder and encoder.kind not in PIPELINE_TEXTS:
        raise UserError(f"--text_encoder={TEXT_ENCODER.value} is none of a pipeline: use ltx:FOLDER, or leave it out")
    text = encoder.folder if encoder else None
    cli.finish(out, export_diffusers(model, out, dtype=DTYPE.value, text=text))


def write_lora(model: "Run", out: Path) -> None:
    from mobile_video_jax.interop.export_diffusers import DTYPES
    from mobile_video_jax.interop.lora_file import export_lora

    cli.finish(out, export_lora(model, out, comfyui=FORMAT.value == "lora_comfyui", dtype=DTYPES[DTYPE.value]))


if __name__ == "__main__":
    cli.run(main)
