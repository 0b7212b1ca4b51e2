"""Encodes a data set: python -m launch.encode --vae=RUN --data=DIR --out=DIR

Writes normalised latents and text states in shards, and the VAE beside them. A stopped job resumes where it was.
Of several --clip each video takes the one that it is long enough for and that is nearest to its aspect ratio and size.
"""

from mobile_video_jax import cli
from mobile_video_jax.core.ranges import Count, CountOrZero, Size, SizeOrZero

VAE = cli.require_path("vae", "The VAE's run directory.", exists=True)
CHECKPOINT = cli.define_checkpoint("vae")
DATA = cli.require_path("data", "A prepared video data set.")
OUT = cli.require_path("out", "The folder of the encoded data set.")
CLIP = cli.define_clips("clip", "Frames x height x width of the clips; may be repeated. The VAE's own without it.")
TEXT_ENCODER = cli.define_located("text_encoder", "minilm", "The captions' encoder: minilm, clip:, t5: or ltx:FOLDER.")
TEXT_TOKENS = cli.define_number("text_tokens", 0, SizeOrZero, "Longest caption; longer ones are cut. 0: the encoder's.")
BATCH_SIZE = cli.define_number("batch_size", 32, Count, "Clips encoded at once.")
ROWS = cli.define_number("rows", 1, Size, "Devices that share each clip, split by rows: for a few long or large clips.")
CLIPS_PER_VIDEO = cli.define_number("clips_per_video", 1, Count, "Clips of each video, spread evenly over its length.")
WINDOW_STRIDE = cli.define_number(
    "window_stride", 0, CountOrZero, "Every clip that begins at a multiple of so many frames; 0: none of these."
)
THREADS = cli.define_number("threads", 0, SizeOrZero, "Threads that decode clips on each host; 0: one for each core.")
SHARD_RECORDS = cli.define_number("shard_records", 1024, Count, "Records in a shard.")


def main() -> None:
    from mobile_video_jax.data.location import data_folder
    from mobile_video_jax.latents.encode import encode_dataset
    from mobile_video_jax.latents.plan import EncodeOptions
    from mobile_video_jax.models.run import Run
    from mobile_video_jax.parallel.distributed import one_writer

    options = EncodeOptions(
        clips=tuple(CLIP.value),
        text_encoder=TEXT_ENCODER.value,
        text_tokens=TEXT_TOKENS.value,
        batch_size=BATCH_SIZE.value,
        shard_records=SHARD_RECORDS.value,
        rows=ROWS.value,
        clips_per_video=CLIPS_PER_VIDEO.value,
        window_stride=WINDOW_STRIDE.value,
        threads=THREADS.value,
    )
    out = OUT.value
    with one_writer(out):
        vae = Run.open(VAE.value, "vae", **CHECKPOINT.value)
        manifest = encode_dataset(vae, data_folder(str(DATA.value)), out, options)
    cli.finish(out, {"out": str(out), "splits": manifest["splits"]})


if __name__ == "__main__":
    cli.run(main, distributed=True)
