"""The VAE's sizes and the weights of its loss."""

import dataclasses
import math
from typing import Annotated, Literal

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Positive, Range, Size, SizeOrZero, Weight
from mobile_video_jax.nn.config import Dtype
from mobile_video_jax.parallel.config import Remat
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.wan.config import WanVaeConfig

Sizes = Annotated[tuple[Size, ...], Range(1, 16)]


@dataclasses.dataclass(frozen=True)
class Level:
    """One resolution of a network."""

    width: int  # channels
    depth: int  # residual blocks
    temporal: bool  # whether convolutions are causal 3-D, not 2-D
    step: tuple[int, int] | None  # strides in time and space to the next lower resolution; None at the lowest


@dataclasses.dataclass(frozen=True)
class OwnEncoder(Config):
    """The encoder of VaeConfig's own sizes."""

    family: Literal["own"] = "own"  # tells it from published encoders


@dataclasses.dataclass(frozen=True)
class VaeConfig(Config):
    """Sizes of the encoder and decoder, listed from high resolution to low.

    Each step between two levels halves rows and columns; the last log2(time stride) of them halve time as well.
    Levels above the first step in time are 2-D per frame, those below are 3-D and causal in time (H3AE, arXiv
    2504.10567). The rest of the space stride comes from a pixel unshuffle of the input.
    """

    compression: str = "t4_s8_c16"  # strides in time and space (powers of two), latent channels, _p2 for 2x2 packed
    encoder_widths: Sizes = (32, 64, 96)  # channels of each level of the encoder
    encoder_depths: Sizes = (1, 1, 1)  # residual blocks of each level of the encoder
    decoder_widths: Sizes = (32, 64, 96)  # channels of each level of the decoder
    decoder_depths: Sizes = (1, 1, 1)  # residual blocks of each level of the decoder
    attention_blocks: SizeOrZero = 1  # attention blocks at the lowest resolution of both halves
    attention_window: Size = 3  # latent frames that a frame attends to, itself included
    head_dim: Size = 32  # channels of an attention head
    rope_theta: Positive = 100.0  # base of RoPE's wavelengths, in latent positions
    encoder: OwnEncoder | LtxVaeConfig | WanVaeConfig = OwnEncoder()  # of these sizes, or a published VAE's
    compact_decoder: bool = False  # a decoder of separable convolutions without attention (vae/compact.py)
    omni: bool = False  # the decoder may be given the features of the first frame; sampling gives it none
    remat: Remat = "none"  # kept for the backward pass: none (all), dots (products), full (each block's input)
    dtype: Dtype = "float32"  # of convolutions and activations

    @property
    def strides(self) -> Compression:
        """The parsed compression, which counts packed patches of latents as one position."""
        return Compression.parse(self.compression)

    @property
    def of_network(self) -> Compression:
        """The compression of the networks, whose latents are packed behind the encoder and unpacked by the decoder."""
        return self.strides.of_vae

    @property
    def patch(self) -> int:
        """Side in pixels of the input's patches, the blocks of its pixel unshuffle."""
        return self.of_network.space >> (len(self.encoder_widths) - 1)

    def levels(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> list[Level]:
        """The levels of one network. Raises UserError where the lists do not fit the compression."""
        steps = len(widths) - 1
        strides = self.of_network
        steps_in_time = int(math.log2(strides.time))
        if len(depths) != len(widths) or len(self.encoder_widths) != len(self.decoder_widths):
            raise UserError("the VAE's widths and depths must name the same number of levels, in both halves")
        if not steps_in_time <= steps <= int(math.log2(strides.space)):
            raise UserError(
                f"a VAE of {self.compression} takes {steps_in_time + 1} to {int(math.log2(strides.space)) + 1} "
                f"levels; its widths name {len(widths)}"
            )
        first_in_time = steps - steps_in_time
        return [
            Level(
                width,
                depth,
                temporal=i > first_in_time,
                step=(2 if i >= first_in_time else 1, 2) if i < steps else None,
            )
            for i, (width, depth) in enumerate(zip(widths, depths, strict=True))
        ]


@dataclasses.dataclass(frozen=True)
class VaeLossConfig(Config):
    """Weights of the loss's terms, each under its term's name; a term of weight 0 is not computed."""

    l1: Weight = 0.1  # mean absolute error of pixels in [-1, 1]
    l2: Weight = 1.0  # mean squared error of pixels in [-1, 1]
    kl: Weight = 1e-6  # divergence of the posterior from a standard normal, a latent value
    latent_consistency: Weight = 0.0  # divergence of the posterior of the decoded clip from the original's
    consistency_mse: Weight = 0.0  # squared distance of the two posteriors' means, in deviations of the batch's latents
    scale_equivariance: Weight = 0.0  # error of decoded latents that were averaged to `scales`
    eq: Weight = 0.0  # error of decoded latents that were turned, as they are and averaged to `scales`
    perceptual: Weight = 0.0  # distance of VGG's features
    adversarial: Weight = 0.0  # hinge loss against a patch discriminator
    teacher: Weight = 0.0  # mean absolute error from the clip that init_from's decoder makes of the same latents
    features: Weight = 0.0  # error of predicting the teacher's features from those of the same resolution


# Changes of the loss's weights in the first phase and in the fine-tuning phase. The prior's term is off while an
# equivariance is on, as in arXiv 2502.14831. The weights are this project's choice.
CONSISTENT = {"latent_consistency": 1e-4}
CONSISTENT_MSE = {"consistency_mse": 0.05}
EQUIVARIANT = {"scale_equivariance": 0.1, "kl": 0.0}
TURNED = {"eq": 0.1, "kl": 0.0}
ADVERSARIAL = {"adversarial": 0.2}
