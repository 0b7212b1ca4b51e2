"""Turns published weights into a run: python -m launch.import_weights --format=diffusers --source=DIR --out=RUN

diffusers: the folder of an LTX-Video pipeline (model_index.json, transformer/, vae/, text_encoder/, tokenizer/,
scheduler/), which the user has downloaded. original: the one safetensors file of a release, with --text=DIR, a folder
that holds text_encoder/ and tokenizer/. No pickles. The run holds the transformer and, in RUN/vae, the VAE; the text
encoder stays where it is, and other commands are told of it with --text_encoder=ltx:DIR.
"""

from pathlib import Path

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers, open_original

FORMAT = flags.DEFINE_enum("format", "diffusers", ["diffusers", "original"], "The source's layout.")
SOURCE = flags.DEFINE_string("source", None, "The folder, or the file of an original release.", required=True)
OUT = flags.DEFINE_string("out", None, "A new run directory.", required=True)
TEXT = flags.DEFINE_string("text", "", "Where text_encoder/ and tokenizer/ lie; a diffusers folder has its own.")
CLIP = flags.DEFINE_string("clip", "49x384x512", "Frames x height x width of the clips that the run is used for.")
FRAME_RATE = flags.DEFINE_float("frame_rate", 25.0, "Frames a second of these clips.", lower_bound=0.001)
SCAN = flags.DEFINE_bool("scan", True, "Stack the blocks, which compiles sooner; as configs/dit.py:ltx does.")


def main() -> None:
    source, out, text = Path(SOURCE.value), Path(OUT.value), Path(TEXT.value) if TEXT.value else None
    if FORMAT.value == "diffusers":
        found = open_diffusers(source)
        found = found._replace(text=text or source)
    elif text is None:
        raise UserError(
            "a release's file holds no text encoder: name a folder with text_encoder/ and tokenizer/ by --text"
        )
    else:
        found = open_original(source, text)
    made = import_weights(found, out, clip=CLIP.value, frame_rate=FRAME_RATE.value, scan=SCAN.value)
    cli.finish(out, made)


if __name__ == "__main__":
    cli.run(main)
