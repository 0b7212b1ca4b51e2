"""The compressed video VAE.

python -m launch.train --config=configs/vae.py:mobile_t8_s32_c128 --workdir=runs/vae --config.data=data/clips
python -m launch.train --config=configs/vae.py:mobile_t8_s32_c128_phase2 --workdir=runs/vae2 --config.data=data/clips \\
    --config.init_from=runs/vae

The variant is SIZE_tT_sS_cC: a size (tiny for two CPU cores, mobile for one accelerator or more, full for a pod), the
strides in time and space, and the latent channels. 8x32x32 with 128 channels is the compression class of the paper.
With _p2 behind it (mobile_t8_s16_c32_p2) 2x2 latent positions are packed as one token of the transformer. With _phase2
at the end it is the second phase, of a tenth of the steps, from the weights in --config.init_from: scale equivariance,
without the KL term.

Real training is led by L1, and half of its clips are cut at the videos' own resolution. --config.loss.adversarial=0.2
adds the discriminator, which learns from half of the steps on.
"""

import dataclasses

import ml_collections

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import DISCRIMINATOR, VaeTraining
from mobile_video_jax.train.config import PlayersOptimizerConfig
from mobile_video_jax.vae.config import EQUIVARIANT, VaeLossConfig
from mobile_video_jax.vae.family import SIZES, family_member

# Muon learns in fewer steps than Adam: the VAE's chapter has what was measured.
TINY_OPTIMIZER = PlayersOptimizerConfig(
    name="muon",
    learning_rate=2e-2,
    adam_learning_rate=2e-3,
    schedule="linear",
    weight_decay=0.0,
    ema_decay=0.99,
    opponent=DISCRIMINATOR,
)
OPTIMIZER = dataclasses.replace(TINY_OPTIMIZER, ema_decay=0.9995)
PHASE2 = "_phase2"


def get_config(variant: str = "tiny_t4_s8_c16") -> ml_collections.ConfigDict:
    """The config of SIZE_tT_sS_cC or its second phase. Raises UserError for anything else."""
    name = variant.removesuffix(PHASE2)
    size, _, compression = name.partition("_")
    if size not in SIZES or not compression:
        raise UserError(
            f"variant '{variant}' is unknown: use SIZE_tT_sS_cC, as tiny_t4_s8_c16, with a size of {', '.join(SIZES)}"
        )
    training = (_tiny if size in ("tiny", "micro") else _real)(size, compression)
    return to_config_dict(training if name == variant else _second_phase(training))


def _tiny(size: str, compression: str) -> VaeTraining:
    return VaeTraining(
        clip=SIZES[size].clip,
        model=family_member(size, compression),
        steps=350,
        batch_size=8,
        eval_every=100,
        checkpoint_every=200,
        eval_batches=8,
        vgg_stages=2,
        discriminator_widths=(16, 32, 64),
        optimizer=TINY_OPTIMIZER,
    )


def _real(size: str, compression: str) -> VaeTraining:
    steps = 100_000
    return VaeTraining(
        clip=SIZES[size].clip,
        model=family_member(size, compression),
        steps=steps,
        batch_size=64,
        eval_every=2_000,
        checkpoint_every=2_000,
        eval_batches=8,
        native_share=0.5,
        loss=VaeLossConfig(l1=1.0, l2=0.0),
        discriminator_lead=steps // 100,
        adaptive_adversarial=True,
        optimizer=dataclasses.replace(OPTIMIZER, generator_alone=steps // 2),
    )


def _second_phase(first: VaeTraining) -> VaeTraining:
    """A tenth of the steps with scale equivariance; a discriminator begins anew, as runs do not keep it."""
    optimizer = dataclasses.replace(first.optimizer, generator_alone=0)
    return dataclasses.replace(
        first,
        steps=first.steps // 10,
        loss=dataclasses.replace(first.loss, **EQUIVARIANT),
        discriminator_lead=first.discriminator_lead // 10,
        optimizer=optimizer,
    )
