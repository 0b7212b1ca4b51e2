"""The family of VAEs: sizes, each at any legal compression."""

import dataclasses
from typing import Literal

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.config import Dtype
from mobile_video_jax.vae.config import VaeConfig


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths and depths of four levels from high resolution to low (fewer levels take the first ones)."""

    clip: str
    encoder_widths: tuple[int, ...]
    encoder_depths: tuple[int, ...]
    decoder_widths: tuple[int, ...]
    decoder_depths: tuple[int, ...]
    head_dim: int = 64
    attention_blocks: int = 1
    omni: bool = True
    dtype: Dtype = "bfloat16"


SizeName = Literal["tiny", "micro", "phone", "mobile", "full"]

# tiny and micro are for CPUs, the others for accelerators; micro and phone are there for their decoders.
# LTX-Video's decoder has 239 M parameters and spends 231 GFLOP on a 512x512 frame. At t8_s32_c128, counted by
# launch.inspect: `mobile` stays under 45 M parameters and an eighth of the FLOPs, `full` under a third of both.
SIZES: dict[str, Size] = {
    "tiny": Size("9x32x32", *((32, 64, 96, 128), (1, 1, 1, 1)) * 2, head_dim=32, omni=False, dtype="float32"),
    "micro": Size("9x32x32", *((16, 32, 32, 64), (1, 1, 1, 1)) * 2, head_dim=32, omni=False, dtype="float32"),
    "phone": Size("17x256x256", *((32, 64, 128, 256), (1, 2, 2, 2)) * 2),
    "mobile": Size("17x256x256", (64, 128, 256, 320), (2, 2, 2, 1), (64, 128, 256, 320), (3, 3, 3, 2)),
    "full": Size(
        *("17x256x256", (96, 192, 384, 448), (3, 3, 3, 3), (96, 192, 384, 448), (3, 4, 4, 3)), attention_blocks=2
    ),
}


def family_member(size: str, compression: str) -> VaeConfig:
    """The network of a size at a compression: input blocks of at most 4x4 pixels, then steps of two.

    Raises UserError for an unknown size and for strides that no four levels reach.
    """
    if size not in SIZES:
        raise UserError(f"VAE size '{size}' is unknown: choose one of {', '.join(SIZES)}")
    strides, plan = Compression.parse(compression), SIZES[size]
    levels = 1 + max(strides.time.bit_length() - 1, strides.space.bit_length() - 3)
    if levels > len(plan.encoder_widths):
        raise UserError(f"compression '{compression}' is beyond this family: time strides go to 8, space strides to 32")
    return VaeConfig(
        compression=compression,
        encoder_widths=plan.encoder_widths[:levels],
        encoder_depths=plan.encoder_depths[:levels],
        decoder_widths=plan.decoder_widths[:levels],
        decoder_depths=plan.decoder_depths[:levels],
        attention_blocks=plan.attention_blocks,
        head_dim=plan.head_dim,
        omni=plan.omni,
        dtype=plan.dtype,
    )


def with_smaller_decoder(config: VaeConfig, size: str) -> VaeConfig:
    """The same encoder and latents with the decoder of another size of the family."""
    smaller = family_member(size, config.compression)
    return dataclasses.replace(config, decoder_widths=smaller.decoder_widths, decoder_depths=smaller.decoder_depths)
