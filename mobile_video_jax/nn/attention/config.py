"""Names of the kinds of self-attention, and settings of those over chunks of frames; commands read it without JAX."""

import dataclasses

from mobile_video_jax.core.errors import UserError

FULL, LCHA, SSA, CHUNKED = KIND_NAMES = ("full", "lcha", "ssa", "chunked")
Grid = tuple[int, int, int]  # frames, rows and columns of tokens


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Settings of attention over chunks, in latent frames."""

    frames: int = 2  # of every chunk but the first
    overlap: int = 1  # frames before a chunk that `chunked` attends to by softmax
    window: int = 6  # frames before a chunk that causal `full` and `ssa` attend to
    stride: int = 2  # rows and columns of tokens that `ssa` averages
    causal: bool = False

    def check(self, kind: str, grid: Grid) -> None:
        """Raises UserError where a kind of attention does not fit a grid of tokens."""
        frames, height, width = grid
        if kind == "ssa" and (height % self.stride or width % self.stride):
            raise UserError(
                f"a stride of {self.stride} does not divide the {height}x{width} tokens of an ssa block: "
                "change model.attention_stride or the clip"
            )
        if (self.causal or kind == "chunked") and (frames - 1) % self.frames:
            raise UserError(
                f"chunks of {self.frames} latent frames do not divide the {frames - 1} after the first: "
                "change model.chunk_frames or the clip"
            )


def check_kind(kind: str) -> None:
    """Raises UserError for an unknown kind."""
    if kind not in KIND_NAMES:
        raise UserError(f"attention kind '{kind}' is unknown: use one of {', '.join(KIND_NAMES)}")
