"""The compressed video VAE.

python -m launch.train --config=configs/vae.py:mobile_t8_s32_c128 --workdir=runs/vae --config.data=data/clips

The variant is SIZE_tT_sS_cC: a size (tiny for two CPU cores, mobile for one accelerator or more, full for a pod), the
strides in time and space, and the latent channels. 8x32x32 with 128 channels is the compression class of the paper.
With _p2 behind it (mobile_t8_s16_c32_p2) 2x2 latent positions are packed as one token of the transformer.
"""

import ml_collections

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.train.config import OptimizerConfig
from mobile_video_jax.vae.family import SIZES, family_member

# Muon learns shapes and motions in fewer steps than Adam at this size.
TINY_OPTIMIZER = OptimizerConfig(
    name="muon",
    learning_rate=2e-2,
    adam_learning_rate=2e-3,
    schedule="linear",
    weight_decay=0.0,
    ema_decay=0.99,
)


def get_config(variant: str = "tiny_t4_s8_c16") -> ml_collections.ConfigDict:
    """The config of SIZE_tT_sS_cC. Raises UserError for anything else."""
    size, _, compression = variant.partition("_")
    if size not in SIZES or not compression:
        raise UserError(
            f"variant '{variant}' is unknown: use SIZE_tT_sS_cC, as tiny_t4_s8_c16, with a size of {', '.join(SIZES)}"
        )
    tiny = size in ("tiny", "micro")
    return to_config_dict(
        VaeTraining(
            clip=SIZES[size].clip,
            model=family_member(size, compression),
            steps=350 if tiny else 100_000,
            batch_size=8 if tiny else 64,
            eval_every=100 if tiny else 2_000,
            checkpoint_every=200 if tiny else 2_000,
            eval_batches=8,
            vgg_stages=2 if tiny else 4,
            discriminator_widths=(16, 32, 64) if tiny else (64, 128, 256),
            optimizer=TINY_OPTIMIZER if tiny else OptimizerConfig(weight_decay=0.0, ema_decay=0.9995),
        )
    )
