"""The diffusion transformer's sizes."""

import dataclasses

from mobile_video_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class BlockShape:
    """What one block may have of its own: heads of self- and cross-attention, hidden channels of the FFN."""

    heads: int
    cross_heads: int
    ffn: int


@dataclasses.dataclass(frozen=True)
class DitConfig:
    """Sizes of the transformer. `blocks` lists (heads, cross_heads, ffn) a block where they differ (a pruned model);
    left empty, all `depth` blocks have `heads` and `ffn`."""

    width: int = 128
    depth: int = 4
    heads: int = 4
    head_dim: int = 32
    ffn: int = 512
    blocks: tuple[tuple[int, int, int], ...] = ()
    time_features: int = 256
    pooled_text: bool = True
    rope_theta: float = 100.0
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
