"""Turns published weights into a run: python -m launch.import_weights --format=diffusers --source=DIR --out=RUN

diffusers: the folder of a pipeline of LTX-Video or Wan (model_index.json, transformer/, vae/, text_encoder/,
tokenizer/, scheduler/), which the user has downloaded; each of two experts becomes a run in RUN. original: the one
safetensors file of a release of LTX-Video, with --text=DIR, a folder that holds text_encoder/ and tokenizer/. No
pickles. The run holds the transformer and, in RUN/vae, the VAE; the text encoder stays where it is, and other commands
are told of it with --text_encoder=ltx:DIR or wan:DIR. lora: a published adapter's file, onto the run --base, in
diffusers' or ComfyUI's names; its run is used like any other. --steps says that it was distilled for few steps.
"""

from pathlib import Path

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Positive, SolverSteps

FORMAT = flags.DEFINE_enum("format", "diffusers", ["diffusers", "original", "lora"], "The source's layout.")
SOURCE = cli.require_path("source", "The folder, or the file of an original release or of a LoRA.", local=True)
BASE = cli.define_path("base", "With --format=lora: the run that it is added to.", exists=True)
OUT = cli.require_path("out", "A new run directory.", local=True)
TEXT = cli.define_path("text", "Where text_encoder/ and tokenizer/ lie; a diffusers folder has its own.", local=True)
CLIP = cli.define_clip("clip", "49x384x512", "Frames x height x width of the clips that the run is used for.")
FRAME_RATE: flags.FlagHolder[float | None] = cli.define_number(
    "frame_rate", None, Positive, "Frames a second of these clips; 25 for LTX-Video, 16 or 24 for Wan if not given."
)
SOLVER = flags.DEFINE_enum(
    "solver",
    None,
    ["euler", "renoise"],
    "Of a distilled original release, whose header lacks it: renoise for 0.9.6-distilled, euler for later ones. Of a "
    "LoRA with --steps: how these are taken; the base's solver if not given.",
)
STEPS: flags.FlagHolder[int | None] = cli.define_number(
    "steps", None, SolverSteps, "With --format=lora: the unguided steps it was distilled for; the base's if not given."
)
SCAN = flags.DEFINE_bool("scan", True, "Stack the blocks, which compiles sooner; as configs/dit.py:ltx does.")


def main() -> None:
    import dataclasses

    from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
    from mobile_video_jax.interop.ltx_release import open_original
    from mobile_video_jax.interop.release import Release

    source, text = SOURCE.value, TEXT.value
    of_adapter = FORMAT.value == "lora" and STEPS.value
    if SOLVER.value and FORMAT.value != "original" and not of_adapter:
        raise UserError(
            "--solver is for a release's single file, or a LoRA with --steps: a folder's scheduler and a LoRA's base "
            "name theirs"
        )
    if STEPS.value and not of_adapter:
        raise UserError("--steps is of a LoRA: a release or a folder names its own")
    if FORMAT.value == "lora":
        return _import_lora(source)
    if FORMAT.value == "diffusers":
        published: Release = dataclasses.replace(open_diffusers(source), text=text or source)
    elif text is None:
        raise UserError(
            "a release's file holds no text encoder: name a folder with text_encoder/ and tokenizer/ by --text"
        )
    else:
        published = open_original(source, text, SOLVER.value)
    summary = import_weights(published, OUT.value, clip=CLIP.value, frame_rate=FRAME_RATE.value, scan=SCAN.value)
    cli.finish(OUT.value, summary)


def _import_lora(source: Path) -> None:
    from mobile_video_jax.interop.lora_file import import_lora
    from mobile_video_jax.models.run import Run

    if BASE.value is None:
        raise UserError("a LoRA is added to a run: name that with --base=RUN")
    base = Run.open(BASE.value)
    cli.finish(OUT.value, import_lora(source, base, OUT.value, steps=STEPS.value or 0, solver=SOLVER.value or ""))


if __name__ == "__main__":
    cli.run(main)
