"""Sizes of the diffusion transformer and of its adapters."""

import dataclasses
import itertools

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Decay, Positive, PositiveShare, Size, SizeOrZero, Weight
from mobile_video_jax.nn.attention.config import FULL, Chunks, Grid, check_kind
from mobile_video_jax.nn.config import EPS, MAX_POSITION, Dtype
from mobile_video_jax.parallel.config import Remat

TARGETS = tuple(
    f"{attention}/{name}" for attention in ("self_attention", "cross_attention") for name in ("q", "k", "v", "out")
)

# Fields of DitConfig that say what a block attends to, and at what resolution.
LAYOUT_KEYS = (
    "layout",
    "new_stages",
    "skips",
    "causal",
    "chunk_frames",
    "chunk_overlap",
    "attention_window",
    "attention_stride",
    "attention_cell",
    "attention_radius",
)


@dataclasses.dataclass(frozen=True)
class BlockShape:
    """Sizes of one block: heads of self- and cross-attention, hidden channels of the FFN; its kind and resolution.

    Consecutive blocks of one resolution are a stage, whose tokens are averaged once; `stage` is its number.
    """

    heads: int
    cross_heads: int
    ffn: int
    kind: str = FULL  # of self-attention, a key of nn.attention.kinds.KINDS
    resolution: int = 1  # divisor of the token grid's height and width
    stage: int = 0
    skip: bool = False  # whether an earlier block's output is added to its input
    kv_heads: int = 0  # heads of keys and values in both attentions; 0: as many as heads

    @property
    def place(self) -> tuple[str, int]:
        """Kind and resolution: an item of DitConfig.layout."""
        return self.kind, self.resolution

    @property
    def widths(self) -> tuple[int, int, int]:
        """Heads, heads of cross-attention, FFN channels: an item of DitConfig.blocks."""
        return self.heads, self.cross_heads, self.ffn


@dataclasses.dataclass(frozen=True)
class Norms:
    """Normalisation of a block."""

    eps: float = EPS  # of the norms before self-attention and FFN
    qk_eps: float = EPS  # of the norms of queries and keys
    qk_across_heads: bool = False  # whether queries and keys are normalised over all heads at once
    layer: bool = False  # LayerNorm before self-attention and FFN, not RMSNorm
    cross: bool = False  # LayerNorm with scale and bias before cross-attention


@dataclasses.dataclass(frozen=True)
class DitConfig(Config):
    """Sizes of the transformer, and what differs in LTX-Video's (arXiv 2501.00103) and Wan's (arXiv 2503.20314)."""

    width: Size = 128  # channels of a token
    depth: Size = 4  # blocks, where `blocks` is empty
    heads: Size = 4  # attention heads of every block, where `blocks` is empty
    kv_heads: SizeOrZero = 0  # heads of keys and values, which heads of queries share in turn; 0: each has its own
    head_dim: Size = 32  # channels of a head; heads x head_dim may differ from the width
    ffn: Size = 512  # hidden channels of every block's FFN, where `blocks` is empty
    blocks: tuple[tuple[Size, Size, Size], ...] = ()  # (heads, cross_heads, ffn) of each block of a pruned model
    layout: tuple[tuple[str, Size], ...] = ()  # per block: kind of attention, divisor of rows and columns; (): full, 1
    new_stages: tuple[Size, ...] = ()  # blocks that begin a stage although the block before has their resolution
    skips: tuple[tuple[SizeOrZero, Size], ...] = ()  # (from, to): blocks whose output joins a later block's input
    causal: bool = False  # attend to a chunk and the frames before it, so that clips can be generated chunk by chunk
    chunk_frames: Size = 2  # latent frames of every chunk but the first, which has one
    chunk_overlap: SizeOrZero = 1  # latent frames before a chunk that kind `chunked` attends to by softmax
    attention_window: SizeOrZero = 6  # latent frames before a chunk that causal `full`, `ssa` and `assa` attend to
    attention_stride: Size = 2  # rows and columns of tokens that kind `ssa` averages and `assa` convolves
    attention_cell: tuple[Size, Size, Size] = (1, 4, 4)  # latent frames, rows and columns of tokens of a cell of `assa`
    attention_radius: SizeOrZero = 1  # cells on each side that a cell of kind `assa` attends to
    time_features: Size = 256  # sines and cosines that the time is embedded by
    pooled_text: bool = True  # add the mean text state to the time embedding
    rope_theta: Positive = 100.0  # base of RoPE's wavelengths, in token positions
    rope_scale: tuple[Positive, ...] = ()  # seconds, pixel rows and columns between tokens; gives heads their own RoPE
    rope_offset: Decay = 0.0  # with rope_scale: time steps by which all frames but the first are earlier
    rope_heads: tuple[tuple[SizeOrZero, ...], ...] = ()  # with rope_scale, per block: RoPE table index of its heads
    qk_norm_across_heads: bool = False  # normalise queries and keys over all heads at once
    qk_norm_eps: PositiveShare = EPS  # added to the mean square of queries and keys
    norm_eps: PositiveShare = EPS  # added to the mean square of a block's input
    final_layer_norm: bool = False  # LayerNorm instead of RMSNorm before the output layer
    block_layer_norm: bool = False  # LayerNorm instead of RMSNorm before self-attention and FFN
    cross_attention_norm: bool = False  # LayerNorm with scale and bias before cross-attention
    attend_text_padding: bool = False  # cross-attention sees the zero states behind a caption as well
    scan: bool = False  # stack equal blocks, which compiles sooner
    remat: Remat = "none"  # kept for the backward pass: none (all), dots (products), full (each block's input)
    dtype: Dtype = "float32"  # of matrix products and activations

    @property
    def block_shapes(self) -> tuple[BlockShape, ...]:
        """The shape of every block in order.

        Raises UserError for a layout that does not fit, and without one for `scan` with unequal blocks.
        """
        sizes = self.blocks or ((self.heads, self.heads, self.ffn),) * self.depth
        if not self.layout:
            shapes = tuple(BlockShape(*widths) for widths in sizes)
            if self.scan and len(set(shapes)) > 1:
                raise UserError("blocks of unequal shapes cannot be scanned: set model.scan=False")
            return self._completed(shapes)
        if len(self.layout) != len(sizes):
            raise UserError(
                f"model.layout lists {len(self.layout)} blocks and the model has {len(sizes)}: "
                "list a kind and a resolution for each"
            )
        for kind, _ in self.layout:
            check_kind(kind)
        stages = self._stages()
        return self._completed(
            tuple(BlockShape(*widths, *place, i) for widths, place, i in zip(sizes, self.layout, stages, strict=True))
        )

    def _completed(self, shapes: tuple[BlockShape, ...]) -> tuple[BlockShape, ...]:
        """The shapes with skips and heads of keys and values. Raises UserError where they do not fit."""
        ends = self.skip_sources
        for source, target in self.skips:
            if not source < target < len(shapes) or shapes[source].resolution != shapes[target].resolution:
                raise UserError(
                    f"model.skips: ({source},{target}) joins no earlier block to a later one of its resolution, "
                    f"of {len(shapes)} blocks"
                )
        if len({*ends, *ends.values()}) < 2 * len(self.skips):
            raise UserError("model.skips: name each block once, as the start or as the end of one skip")
        fewest = min(min(shape.heads, shape.cross_heads) for shape in shapes)
        if self.kv_heads and (self.kv_heads > fewest or self.qk_norm_across_heads):
            raise UserError(
                f"model.kv_heads={self.kv_heads} asks for blocks of at least as many heads (the fewest are {fewest}), "
                "each normalised alone"
            )
        return tuple(
            dataclasses.replace(shape, skip=i in ends, kv_heads=self.kv_heads) for i, shape in enumerate(shapes)
        )

    @property
    def skip_sources(self) -> dict[int, int]:
        """The block that each skip starts at, by the block that it ends at."""
        return {target: source for source, target in self.skips}

    def _stages(self) -> list[int]:
        """The number of each block's stage."""
        resolutions = [resolution for _, resolution in self.layout]
        begins = [
            i in self.new_stages or after != before
            for i, (before, after) in enumerate(itertools.pairwise(resolutions), 1)
        ]
        return [sum(begins[:i]) for i in range(len(resolutions))]

    @property
    def chunks(self) -> Chunks:
        """Settings of attention over chunks of frames."""
        return Chunks(
            frames=self.chunk_frames,
            overlap=self.chunk_overlap,
            window=self.attention_window,
            stride=self.attention_stride,
            cell=self.attention_cell,
            radius=self.attention_radius,
            causal=self.causal,
        )

    @property
    def temporal_modules(self) -> frozenset[str]:
        """The modules over time, which images skip: none."""
        return frozenset()

    @property
    def stream_chunk(self) -> int:
        """Latent frames of a chunk of a stream; 0 where blocks see whole clips."""
        return self.chunk_frames if self.causal else 0

    def check_grid(self, grid: Grid) -> None:
        """Raises UserError where the layout does not fit clips of a grid of tokens (frames, rows, columns)."""
        frames, height, width = grid
        if self.causal and self.rope_scale:
            raise UserError("positions in seconds (model.rope_scale) cannot be causal: set model.causal=False")
        self._check_positions(grid)
        for shape in dict.fromkeys(self.block_shapes):
            divisor = shape.resolution
            if height % divisor or width % divisor:
                raise UserError(
                    f"resolution {divisor} does not divide the {height}x{width} tokens of a frame: "
                    "change model.layout or the clip"
                )
            self.chunks.check(shape.kind, (frames, height // divisor, width // divisor))

    def _check_positions(self, grid: Grid) -> None:
        """Raises UserError where clips are longer or larger than the positions that `rope_scale` gives reach."""
        units = ("seconds", "pixel rows", "pixel columns")
        for count, step, largest, unit in zip(grid, self.rope_scale, MAX_POSITION, units, strict=False):
            if (count - 1) * step > largest:
                raise UserError(
                    f"{count} latent positions of {step:.4g} {unit} each are beyond the {largest:g} that this model's "
                    "positions know: use smaller clips or, where they are too long, more frames a second"
                )

    def with_latent_seconds(self, seconds: float) -> "DitConfig":
        """The sizes for latent frames that are `seconds` apart; the same where positions are no seconds."""
        return dataclasses.replace(self, rope_scale=(seconds, *self.rope_scale[1:])) if self.rope_scale else self

    @property
    def norms(self) -> Norms:
        """Normalisation settings of the blocks."""
        return Norms(
            eps=self.norm_eps,
            qk_eps=self.qk_norm_eps,
            qk_across_heads=self.qk_norm_across_heads,
            layer=self.block_layer_norm,
            cross=self.cross_attention_norm,
        )

    @property
    def block_rope_heads(self) -> tuple[tuple[int, ...], ...]:
        """Per block, the indices of its heads in the RoPE table of width / head_dim heads; () without `rope_scale`.

        Raises UserError where the lists do not fit the blocks, and for `scan` with lists that differ.
        """
        shapes, heads = self.block_shapes, self.width // self.head_dim
        if not self.rope_scale:
            return ((),) * len(shapes)
        indices = self.rope_heads or tuple(tuple(range(shape.heads)) for shape in shapes)
        if [len(block) for block in indices] != [shape.heads for shape in shapes] or max(map(max, indices)) >= heads:
            raise UserError(
                f"model.rope_heads does not fit the blocks: list for each of their heads which of the {heads} "
                "(width / head_dim) it is"
            )
        if self.scan and not self.layout and len(set(indices)) > 1:
            raise UserError("blocks of different rope_heads cannot be scanned: set model.scan=False")
        return indices


@dataclasses.dataclass(frozen=True)
class LoraConfig(Config):
    """A low-rank adapter of linear layers (LoRA, arXiv 2106.09685), whose factors do not decay and are Adam's."""

    rank: SizeOrZero = 0  # rank of the update of each layer; 0: no adapter
    alpha: Weight = 16.0  # the update is multiplied by alpha / rank, so that rank and learning rate are independent
    targets: tuple[str, ...] = TARGETS  # linear layers by their names in a block, those of all blocks

    @property
    def scale(self) -> float:
        """Factor of the update A B."""
        return self.alpha / self.rank
