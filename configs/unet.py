"""The compact U-Net of SnapGen (arXiv 2412.09619) on latents of images, and of SnapGen-V (arXiv 2412.10494) on clips.

python -m launch.train --config=configs/unet.py:tiny --workdir=runs/unet --config.data=data/latents

Variants: tiny (two CPU cores), phone (the paper's shape of 379 M parameters, at 512 px), snapgen (phone at 1024 px,
continued with --config.init_from=runs/phone), video_tiny and snapgenv (layers over time alone, behind the frozen image
network in --config.init_from: one of tiny; one of phone with --config.compression=t8_s16_c32, for 5 s at 24 frames/s,
0.6 B parameters), and ladder_0 to ladder_7: the reductions that lead from SDXL's U-Net (2.6 B parameters) to it, each
added to those before. `python -m launch.inspect --config=configs/unet.py:ladder_3` counts one and estimates its
milliseconds on a phone; `python -m export.phone_estimate --config=configs/unet.py:snapgen --clip=1x1024x1024` estimates
a whole image. An image is a clip of one frame; without layers over time a longer clip is independent frames.
"""

import dataclasses
from typing import Any

import ml_collections

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.train.config import OptimizerConfig
from mobile_video_jax.unet.config import UnetConfig

# SDXL's U-Net (arXiv 2307.01952), with RMS norms, QK-norm and RoPE.
SDXL = UnetConfig(
    widths=(320, 640, 1280),
    residuals=(2, 2, 2),
    blocks=(0, 2, 10),
    self_attention_levels=2,
    head_dim=64,
    multi_query=False,
    separable=False,
    expansion=1,
    ffn_ratio=4,
    remat="full",
    dtype="bfloat16",
)
# What each step of the ladder changes.
REDUCTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"widths": (256, 512, 896), "blocks": (0, 2, 4)},  # thinner and shorter
    {"self_attention_levels": 1},
    {"separable": True},
    {"expansion": 2},
    {"ffn_ratio": 3},
    {"multi_query": True},
    {"residuals": (1, 2, 2), "blocks": (1, 2, 4)},  # cross-attention from the first level on, for a residual block
)
LADDER = tuple(
    dataclasses.replace(SDXL, **{key: value for change in REDUCTIONS[: i + 1] for key, value in change.items()})
    for i in range(len(REDUCTIONS))
)
PHONE = LADDER[-1]
TINY = UnetConfig(widths=(64, 128), residuals=(1, 1), blocks=(1, 1))
# What SnapGen-V's search is reported to find: 1-D layers at high resolution, 3-D attention at the lowest.
VIDEO = PHONE.over_time(("conv1d", "attention1d", "attention3d")[level] for _, level in PHONE.places)
VIDEO_TINY = TINY.over_time(("conv1d", "attention3d")[level] for _, level in TINY.places)
SIZES = {
    "phone": ("1x512x512", "t4_s8_c16", PHONE),
    "snapgen": ("1x1024x1024", "t4_s8_c16", PHONE),
    "snapgenv": ("121x512x512", "t8_s16_c32", VIDEO),
    **{f"ladder_{i}": ("1x1024x1024", "t4_s8_c16", model) for i, model in enumerate(LADDER)},
}


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant in ("tiny", "video_tiny"):
        tiny = _tiny()
        video = dataclasses.replace(tiny, clip="9x32x32", model=VIDEO_TINY, temporal_only=True)
        return to_config_dict(tiny if variant == "tiny" else video)
    if variant not in SIZES:
        raise UserError(f"variant '{variant}' is unknown: use one of tiny, video_tiny, {', '.join(SIZES)}")
    clip, compression, model = SIZES[variant]
    return to_config_dict(
        DitTraining(
            clip=clip,
            compression=compression,
            text_encoder="t5",
            text_width=4096,
            text_tokens=77,
            model=model,
            temporal_only=bool(model.temporal),
            steps=200_000,
            batch_size=256,
            eval_every=2_000,
            checkpoint_every=2_000,
            auto=True,
            loader_threads=16,  # reads of a mounted bucket in flight
        )
    )


def _tiny() -> DitTraining:
    # As for the transformer: Muon needs fewer steps than Adam at this size.
    optimizer = OptimizerConfig(
        name="muon",
        learning_rate=1.5e-2,
        adam_learning_rate=2e-3,
        schedule="linear",
        weight_decay=0.0,
        ema_decay=0.995,
    )
    return DitTraining(
        clip="1x32x32",
        compression="t4_s8_c16",
        text_tokens=12,
        model=TINY,
        steps=800,
        batch_size=32,
        eval_every=200,
        eval_batches=4,
        checkpoint_every=400,
        optimizer=optimizer,
    )
