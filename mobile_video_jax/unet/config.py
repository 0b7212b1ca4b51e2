"""Sizes of the compact U-Net."""

import dataclasses
from collections.abc import Iterable
from typing import Literal, cast

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Positive, Size, SizeOrZero
from mobile_video_jax.nn.config import Dtype
from mobile_video_jax.parallel.config import Remat

NONE = "none"
# Layers over time (unet/temporal.py).
Temporal = Literal["none", "conv1d", "conv3d", "attention1d", "attention3d", "cross"]


@dataclasses.dataclass(frozen=True)
class UnetConfig(Config):
    """Sizes of the U-Net of SnapGen (arXiv 2412.09619), and of SDXL's (arXiv 2307.01952), which it was reduced from.

    Lists have an entry for each level, from the highest resolution to the lowest. Raises UserError where they do not
    fit each other.
    """

    family: Literal["unet"] = "unet"  # tells runs of this network from those of the transformer
    widths: tuple[Size, ...] = (64, 128)  # channels of each level; a level has half the rows and columns of the last
    residuals: tuple[Size, ...] = (1, 1)  # residual blocks of each level on the way down; on the way up one more
    blocks: tuple[SizeOrZero, ...] = (1, 1)  # transformer blocks behind each residual block
    self_attention_levels: SizeOrZero = 1  # levels, from the lowest, whose transformer blocks have self-attention
    head_dim: Size = 32  # channels of an attention head
    multi_query: bool = True  # the heads of queries share one head of keys and values (arXiv 1911.02150)
    separable: bool = True  # convolutions are depthwise, then pointwise (arXiv 1704.04861)
    expansion: Size = 2  # channels between the convolutions of a residual block, as a factor of its width
    ffn_ratio: Size = 3  # hidden channels of an FFN, as a factor of its width
    time_features: Size = 256  # sines and cosines that the time is embedded by
    rope_theta: Positive = 100.0  # base of RoPE's wavelengths, in latent positions
    temporal: tuple[Temporal, ...] = ()  # layers over time behind each place, in the order of `places`; empty: nowhere
    remat: Remat = "none"  # kept for the backward pass: none (all), dots (products), full (each block's input)
    dtype: Dtype = "float32"  # of matrix products and activations

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("residuals", "blocks"):
            if len(getattr(self, name)) != len(self.widths):
                raise UserError(f"model.{name} has {len(getattr(self, name))} entries, model.widths {len(self.widths)}")
        for width, blocks in zip(self.widths, self.blocks, strict=True):
            if blocks and width % self.head_dim:
                raise UserError(f"a level of width {width} is no multiple of model.head_dim={self.head_dim}")
        if self.temporal and len(self.temporal) != len(self.places):
            raise UserError(
                f"model.temporal has {len(self.temporal)} entries, the network {len(self.places)} places: list a kind "
                f"for each of {', '.join(name for name, _ in self.places)}"
            )
        for name, (kind, level) in self.temporal_layers.items():
            if not kind.startswith("conv") and self.widths[level] % self.head_dim:
                raise UserError(f"model.temporal has {kind} at {name}, whose width is no multiple of model.head_dim")

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """The names of residual blocks with their transformer blocks, in order, and the level of each."""
        levels = range(len(self.widths))
        up = [(f"up_{i}_{j}", i) for i in reversed(levels) for j in range(self.residuals[i] + 1)]
        return (*self.down_places, ("middle", levels[-1]), *up)

    @property
    def down_places(self) -> tuple[tuple[str, int], ...]:
        """Those of the places that are on the way down."""
        return tuple((f"down_{i}_{j}", i) for i, count in enumerate(self.residuals) for j in range(count))

    def over_time(self, kinds: Iterable[str]) -> "UnetConfig":
        """The same network with other layers over time, a kind for each place."""
        return dataclasses.replace(self, temporal=cast(tuple[Temporal, ...], tuple(kinds)))

    @property
    def temporal_layers(self) -> dict[str, tuple[str, int]]:
        """The kind of the layers over time, and the level, of each place that has any."""
        places = zip(self.temporal, self.places, strict=bool(self.temporal))
        return {name: (kind, level) for kind, (name, level) in places if kind != NONE}

    @property
    def temporal_modules(self) -> frozenset[str]:
        """The modules over time, which images skip."""
        return frozenset(f"temporal_{name}" for name in self.temporal_layers)

    @property
    def embedding_width(self) -> int:
        """Channels of the embedding of time and text, four times those of the first level."""
        return 4 * self.widths[0]

    def has_self_attention(self, level: int) -> bool:
        """True where the transformer blocks of a level have self-attention."""
        return level >= len(self.widths) - self.self_attention_levels

    @property
    def stream_chunk(self) -> int:
        """Latent frames of a chunk of a stream: 0, it sees whole clips."""
        return 0

    def check_grid(self, grid: tuple[int, int, int]) -> None:
        """Raises UserError for latents (frames, rows, columns) that cannot be halved from level to level."""
        factor, (_, height, width) = 2 ** (len(self.widths) - 1), grid
        if height % factor or width % factor:
            raise UserError(
                f"latents of {height} x {width} positions do not divide by {factor}, as a U-Net of "
                f"{len(self.widths)} levels needs: use another clip or fewer levels"
            )

    def with_latent_seconds(self, seconds: float) -> "UnetConfig":
        """The same sizes: positions in time count latent frames."""
        return self
