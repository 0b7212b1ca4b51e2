"""Encodes a data set: python -m launch.encode --vae=RUN --data=DIR --out=DIR

Writes normalised latents and text states in shards, and the VAE beside them. A stopped job goes on where it was.
Of several --clip each video takes the one that it is long enough for and that is nearest to its aspect ratio and size.
"""

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.data.cache import data_folder
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.parallel.distributed import one_writer

VAE = flags.DEFINE_string("vae", None, "The VAE's run directory.", required=True)
DATA = flags.DEFINE_string("data", None, "A prepared video data set.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder of the encoded data set.", required=True)
CLIP = flags.DEFINE_multi_string(
    "clip", [], "Frames x height x width of the clips; may be repeated. The VAE's training clip without it."
)
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "minilm", "The captions' encoder: minilm, clip:, t5: or ltx:FOLDER.")
TEXT_TOKENS = flags.DEFINE_integer("text_tokens", 0, "Cuts longer captions, saying how; 0 cuts at the encoder's limit.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Clips encoded at once.")
ROWS = flags.DEFINE_integer("rows", 1, "Devices that share each clip, cut by rows: for a few long or large clips.")
CLIPS_PER_VIDEO = flags.DEFINE_integer("clips_per_video", 1, "Clips of each video, spread evenly over its length.")
WINDOW_STRIDE = flags.DEFINE_integer("window_stride", 0, "Every clip that begins at a multiple of so many frames.")
SHARD_RECORDS = flags.DEFINE_integer("shard_records", 1024, "Records in a shard.")


def main() -> None:
    out = storage_path(OUT.value)
    with one_writer(out):
        manifest = encode_dataset(storage_path(VAE.value), data_folder(DATA.value), out, _options())
    cli.finish(out, {"out": str(out), "splits": manifest["splits"]})


def _options() -> EncodeOptions:
    return EncodeOptions(
        clips=tuple(CLIP.value),
        text_encoder=TEXT_ENCODER.value,
        text_tokens=TEXT_TOKENS.value,
        batch_size=BATCH_SIZE.value,
        shard_records=SHARD_RECORDS.value,
        rows=ROWS.value,
        clips_per_video=CLIPS_PER_VIDEO.value,
        window_stride=WINDOW_STRIDE.value,
    )


if __name__ == "__main__":
    cli.run(main, distributed=True)
