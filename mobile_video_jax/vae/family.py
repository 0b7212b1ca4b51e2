"""The family of VAEs: named sizes, each available at any legal compression."""

import dataclasses
from typing import Literal

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.config import Dtype
from mobile_video_jax.vae.config import VaeConfig


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths and depths of four levels from high resolution to low; networks of fewer levels use the first ones."""

    clip: str  # shape that it is trained and evaluated at
    widths: tuple[int, ...]  # of encoder and decoder
    depths: tuple[int, ...]  # of the encoder, and of the decoder unless decoder_depths differ
    decoder_depths: tuple[int, ...] = ()
    head_dim: int = 64
    attention_blocks: int = 1
    dtype: Dtype = "bfloat16"


SizeName = Literal["tiny", "micro", "phone", "mobile", "full"]

# tiny and micro are for CPUs, the others for accelerators; micro and phone exist for their decoders.
# LTX-Video's decoder has 239 M parameters and spends 231 GFLOP on a 512x512 frame. At t8_s32_c128, counted by
# launch.inspect: `mobile` stays under 45 M parameters and an eighth of the FLOPs, `full` under a third of both.
SIZES: dict[str, Size] = {
    "tiny": Size("9x32x32", (32, 64, 96, 128), (1, 1, 1, 1), head_dim=32, dtype="float32"),
    "micro": Size("9x32x32", (16, 32, 32, 64), (1, 1, 1, 1), head_dim=32, dtype="float32"),
    "phone": Size("17x256x256", (32, 64, 128, 256), (1, 2, 2, 2)),
    "mobile": Size("17x256x256", (64, 128, 256, 320), (2, 2, 2, 1), decoder_depths=(3, 3, 3, 2)),
    "full": Size("17x256x256", (96, 192, 384, 448), (3, 3, 3, 3), decoder_depths=(3, 4, 4, 3), attention_blocks=2),
}


def family_member(size: str, compression: str) -> VaeConfig:
    """Config of a size at a compression: input patches of at most 4x4 pixels, then steps of two.

    Raises UserError for an unknown size and for strides that need more than four levels.
    """
    if size not in SIZES:
        raise UserError(f"VAE size '{size}' is unknown: choose one of {', '.join(SIZES)}")
    strides, sizes = Compression.parse(compression).of_vae, SIZES[size]
    levels = 1 + max(strides.time.bit_length() - 1, strides.space.bit_length() - 3)
    if levels > len(sizes.widths):
        raise UserError(f"compression '{compression}' is beyond this family: time strides go to 8, space strides to 32")
    return VaeConfig(
        compression=compression,
        encoder_widths=sizes.widths[:levels],
        encoder_depths=sizes.depths[:levels],
        decoder_widths=sizes.widths[:levels],
        decoder_depths=(sizes.decoder_depths or sizes.depths)[:levels],
        attention_blocks=sizes.attention_blocks,
        head_dim=sizes.head_dim,
        dtype=sizes.dtype,
    )


# Widths of compact decoders (vae/compact.py): compactN has about 1/N of the parameters of the size's own decoder, and
# `compact` at t4_s8_c16 those of SnapGen's decoder (arXiv 2412.09619), 1.38 M.
COMPACT: dict[str, dict[str, tuple[int, ...]]] = {
    "tiny": {"compact4": (44, 88, 136, 180), "compact16": (20, 44, 64, 88), "compact36": (12, 28, 40, 52)},
    "mobile": {
        "compact": (76, 160, 312, 400),
        "compact4": (116, 232, 460, 576),
        "compact16": (56, 112, 224, 280),
        "compact36": (36, 72, 144, 180),
    },
}


def with_compact_decoder(config: VaeConfig, size: str, name: str) -> VaeConfig:
    """The config with a compact decoder of COMPACT; encoder and latents are unchanged.

    Raises UserError for a size that has none of that name.
    """
    if name not in COMPACT.get(size, {}):
        known = ", ".join(f"{size}'s {name}" for size, names in COMPACT.items() for name in names)
        raise UserError(f"size '{size}' has no decoder '{name}': use one of {known}")
    widths = COMPACT[size][name][: len(config.encoder_widths)]
    return dataclasses.replace(config, decoder_widths=widths, compact_decoder=True, omni=False)


def scaled(config: VaeConfig, scale: float) -> VaeConfig:
    """The config with all widths multiplied, to multiples of 4 and at the lowest resolution of the heads' channels."""

    def multiplied(widths: tuple[int, ...]) -> tuple[int, ...]:
        steps = (4,) * (len(widths) - 1) + (config.head_dim,)
        return tuple(max(step, round(width * scale / step) * step) for width, step in zip(widths, steps, strict=True))

    return dataclasses.replace(
        config, encoder_widths=multiplied(config.encoder_widths), decoder_widths=multiplied(config.decoder_widths)
    )


def with_smaller_decoder(config: VaeConfig, size: str) -> VaeConfig:
    """The config with the decoder of another size of the family; encoder and latents are unchanged."""
    smaller = family_member(size, config.compression)
    return dataclasses.replace(config, decoder_widths=smaller.decoder_widths, decoder_depths=smaller.decoder_depths)
