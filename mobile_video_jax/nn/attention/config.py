"""Names of the kinds of self-attention, and their settings over parts of a clip; commands read it without JAX."""

import dataclasses

from mobile_video_jax.core.errors import UserError

FULL, LINEAR, LCHA, SSA, CHUNKED, ASSA = KIND_NAMES = ("full", "linear", "lcha", "ssa", "chunked", "assa")
Grid = tuple[int, int, int]  # frames, rows and columns of tokens


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Settings of attention over chunks, squares and cells, in latent frames and tokens."""

    frames: int = 2  # of every chunk but the first
    overlap: int = 1  # frames before a chunk that `chunked` attends to by softmax
    window: int = 6  # frames before a chunk that causal `full`, `ssa` and `assa` attend to
    stride: int = 2  # rows and columns of tokens that `ssa` averages and `assa` convolves
    cell: Grid = (1, 4, 4)  # frames, rows and columns of a cell of `assa`; a shorter axis is one cell
    radius: int = 1  # cells of `assa` before and behind a cell, along each axis, that it attends to
    causal: bool = False

    def check(self, kind: str, grid: Grid) -> None:
        """Raises UserError where a kind of attention does not fit a grid of tokens."""
        frames, height, width = grid
        if kind in (SSA, ASSA) and (height % self.stride or width % self.stride):
            raise UserError(
                f"a stride of {self.stride} does not divide the {height}x{width} tokens of an {kind} block: "
                "change model.attention_stride or the clip"
            )
        axes = list(zip(grid, self.cell, strict=True))[int(self.causal) :]  # causal cells along time are chunks
        if kind == ASSA and any(length % min(length, size) for length, size in axes):
            raise UserError(
                f"cells of {_sizes(self.cell)} do not divide the {_sizes(grid)} frames, rows and columns of tokens of "
                "an assa block: change model.attention_cell or the clip"
            )
        if (self.causal or kind == CHUNKED) and (frames - 1) % self.frames:
            raise UserError(
                f"chunks of {self.frames} latent frames do not divide the {frames - 1} after the first: "
                "change model.chunk_frames or the clip"
            )


def _sizes(grid: Grid) -> str:
    return "x".join(map(str, grid))


def check_kind(kind: str) -> None:
    """Raises UserError for an unknown kind."""
    if kind not in KIND_NAMES:
        raise UserError(f"attention kind '{kind}' is unknown: use one of {', '.join(KIND_NAMES)}")
