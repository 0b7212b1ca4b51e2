"""The compressed video VAE.

python -m launch.train --config=configs/vae.py:mobile_t8_s32_c128 --workdir=runs/vae --config.data=data/clips

The variant is SIZE_tT_sS_cC: a size (tiny for two CPU cores, mobile for one accelerator or more), the strides in
time and space, and the latent channels. 8x32x32 with 128 channels is the compression class of the paper.
"""

import ml_collections

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.vae import VaeTraining
from mobile_video_jax.train.config import OptimizerConfig
from mobile_video_jax.vae.config import VaeConfig

# Widths of four levels from high resolution to low (fewer levels take the first ones) and blocks a level.
SIZES: dict[str, tuple[tuple[int, ...], int, str]] = {
    "tiny": ((32, 64, 96, 128), 1, "9x32x32"),
    "mobile": ((64, 128, 256, 512), 3, "17x256x256"),
}

# Muon learns shapes and motions in fewer steps than Adam at this size.
TINY_OPTIMIZER = OptimizerConfig(
    name="muon",
    learning_rate=2e-2,
    adam_learning_rate=2e-3,
    schedule="linear",
    weight_decay=0.0,
    ema_decay=0.99,
)


def model(size: str, compression: str) -> VaeConfig:
    """The network of a size at a compression: input blocks of at most 4x4 pixels, then steps of two."""
    strides = Compression.parse(compression)
    levels = 1 + max(strides.time.bit_length() - 1, strides.space.bit_length() - 3)
    widths, depth, _ = SIZES[size]
    widths, depths = widths[:levels], (depth,) * levels
    return VaeConfig(
        compression=compression,
        encoder_widths=widths,
        encoder_depths=depths,
        decoder_widths=widths,
        decoder_depths=depths,
        dtype="float32" if size == "tiny" else "bfloat16",
    )


def get_config(variant: str = "tiny_t4_s8_c16") -> ml_collections.ConfigDict:
    """The config of SIZE_tT_sS_cC. Raises UserError for anything else."""
    size, _, compression = variant.partition("_")
    if size not in SIZES:
        raise UserError(f"variant '{variant}' is unknown: use SIZE_tT_sS_cC with a size of {', '.join(SIZES)}")
    tiny = size == "tiny"
    return to_config_dict(
        VaeTraining(
            clip=SIZES[size][2],
            model=model(size, compression),
            steps=350 if tiny else 100_000,
            batch_size=8 if tiny else 64,
            eval_every=100 if tiny else 2_000,
            checkpoint_every=200 if tiny else 2_000,
            eval_batches=8,
            optimizer=TINY_OPTIMIZER if tiny else OptimizerConfig(weight_decay=0.0, ema_decay=0.9995),
        )
    )
