"""A smaller decoder for a trained VAE: the encoder stays, so the latents and every transformer on them stay as well.

python -m launch.train --config=configs/vae_decoder.py:full_t8_s32_c128 --workdir=runs/vae_phone \\
    --config.init_from=runs/vae --config.data=data/clips

The variant is that of the VAE in configs/vae.py. A full VAE gets mobile's decoder, a mobile one phone's, a tiny one
micro's; SIZE_tT_sS_cC_compact4 (compact16, compact36) gets one of separable convolutions with about that part of the
parameters of the size's own decoder, mobile_t4_s8_c16_compact one of SnapGen's 1.38 M. Sample with it by
python -m launch.sample --vae=runs/vae_phone.

ltx_SIZE, wan_SIZE, ti2v_SIZE (SIZE mobile or phone, or mobile_compact4 to mobile_compact36) are decoders for the
imported VAEs of LTX-Video, Wan 2.1 and Wan 2.2 TI2V, with --config.init_from the import's run: they learn from the
published decoder's clips and features (after Turbo-VAED, arXiv 2508.09136). loss.teacher and loss.features do so for
any other variant.
"""

import dataclasses

import ml_collections

from configs import vae
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.vae.config import VaeLossConfig
from mobile_video_jax.vae.family import with_compact_decoder, with_smaller_decoder
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.wan.config import PUBLISHED as WAN
from mobile_video_jax.vae.wan.config import WanVaeConfig

SMALLER = {"full": "mobile", "mobile": "phone", "tiny": "micro"}


PUBLISHED: dict[str, LtxVaeConfig | WanVaeConfig] = {"ltx": LtxVaeConfig(), "wan": WAN[0], "ti2v": WAN[1]}
TAUGHT = VaeLossConfig(l1=1.0, l2=0.0, kl=0.0, teacher=1.0, features=0.1)


def get_config(variant: str = "tiny_t4_s8_c16") -> ml_collections.ConfigDict:
    """The config of SIZE_tT_sS_cC[_compactN] or FAMILY_SIZE. Raises UserError for what has no such decoder."""
    family, _, size = variant.partition("_")
    if family in PUBLISHED:
        return to_config_dict(_for_published(PUBLISHED[family], size))
    variant, is_compact, divisor = variant.partition("_compact")
    base = from_mapping(VaeTraining, vae.get_config(variant).to_dict())
    size = variant.partition("_")[0]
    if is_compact:
        model = with_compact_decoder(base.model, size, f"compact{divisor}")
        return to_config_dict(dataclasses.replace(base, model=model, freeze_encoder=True))
    if size not in SMALLER:
        raise UserError(f"there is no decoder below size '{size}': use one of {', '.join(SMALLER)}")
    model = with_smaller_decoder(base.model, SMALLER[size])
    return to_config_dict(dataclasses.replace(base, model=model, freeze_encoder=True))


def _for_published(encoder: LtxVaeConfig | WanVaeConfig, variant: str) -> VaeTraining:
    """A decoder of a size for a published VAE's latents."""
    size, is_compact, divisor = variant.partition("_compact")
    base = from_mapping(VaeTraining, vae.get_config(f"{size}_{encoder.strides}").to_dict())
    model = dataclasses.replace(base.model, encoder=encoder, omni=False)
    if is_compact:
        model = with_compact_decoder(model, size, f"compact{divisor}")
    return dataclasses.replace(base, model=model, freeze_encoder=True, loss=TAUGHT)
