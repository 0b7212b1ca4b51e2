"""The diffusion transformer's sizes."""

import dataclasses

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.norm import EPS


@dataclasses.dataclass(frozen=True)
class BlockShape:
    """What one block may have of its own: heads of self- and cross-attention, hidden channels of the FFN."""

    heads: int
    cross_heads: int
    ffn: int


@dataclasses.dataclass(frozen=True)
class Norms:
    """The norms of a block: eps of its own, eps of those of queries and keys, and whether these are across heads."""

    eps: float = EPS
    qk_eps: float = EPS
    qk_across_heads: bool = False


@dataclasses.dataclass(frozen=True)
class DitConfig:
    """Sizes of the transformer, and what differs in LTX-Video's (arXiv 2501.00103), off by default.

    `blocks` lists (heads, cross_heads, ffn) a block where they differ (a pruned model); left empty, all `depth` blocks
    have `heads` and `ffn`. `qk_norm_across_heads` normalises queries and keys over all heads at once, and
    `final_layer_norm` the last layer's input by LayerNorm. `rope_scale`, the seconds, pixel rows and pixel columns of a
    step between latent places, gives each of the width's heads RoPE of its own (nn.embeddings.fraction_rope_table);
    `rope_heads` then lists for each block which of them its heads of self-attention are; left empty, the first ones.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    head_dim: int = 32
    ffn: int = 512
    blocks: tuple[tuple[int, int, int], ...] = ()
    time_features: int = 256
    pooled_text: bool = True
    rope_theta: float = 100.0
    rope_scale: tuple[float, ...] = ()
    rope_heads: tuple[tuple[int, ...], ...] = ()
    qk_norm_across_heads: bool = False
    qk_norm_eps: float = EPS
    norm_eps: float = EPS
    final_layer_norm: bool = False
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"

    @property
    def block_shapes(self) -> tuple[BlockShape, ...]:
        """The shape of every block in order. Raises UserError where scan is asked of unequal blocks."""
        shapes = tuple(BlockShape(*sizes) for sizes in self.blocks)
        shapes = shapes or (BlockShape(self.heads, self.heads, self.ffn),) * self.depth
        if self.scan and len(set(shapes)) > 1:
            raise UserError("blocks of unequal shapes cannot be scanned: set model.scan=False")
        return shapes

    @property
    def norms(self) -> Norms:
        """What the blocks' norms have of these settings."""
        return Norms(self.norm_eps, self.qk_norm_eps, self.qk_norm_across_heads)

    @property
    def block_rope_heads(self) -> tuple[tuple[int, ...], ...]:
        """Which of the width's heads those of every block turn as; () without `rope_scale`.

        Raises UserError where the lists do not fit the blocks, or scan is asked of blocks whose lists differ.
        """
        shapes, heads = self.block_shapes, self.width // self.head_dim
        if not self.rope_scale:
            return ((),) * len(shapes)
        own = self.rope_heads or tuple(tuple(range(shape.heads)) for shape in shapes)
        if [len(block) for block in own] != [shape.heads for shape in shapes] or max(map(max, own)) >= heads:
            raise UserError(
                f"model.rope_heads does not fit the blocks: list for each of their heads which of the {heads} "
                "(width / head_dim) it is"
            )
        if self.scan and len(set(own)) > 1:
            raise UserError("blocks of different rope_heads cannot be scanned: set model.scan=False")
        return own
