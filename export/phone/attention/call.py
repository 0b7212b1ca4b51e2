"""One call of a transformer's block over the tokens of a grid: of a whole clip, or of a stream's first or later chunk.

Positions of a stream are relative to its call's first frame, so that one function serves clips of any length: what is
carried from before is turned back by the frames of the call.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from export.phone.turn import Rope
from mobile_video_jax.nn.attention.config import Chunks, Grid

LARGEST = 65504.0  # of fp16; a clamp without it would get a bound that overflows
WHOLE_CLIP, FIRST, NEXT = "", "first", "next"
State = dict[str, Tensor]
Heads = Float[Tensor, "h d 1 s"]
Packed = Float[Tensor, "1 hd 1 s"]


@dataclasses.dataclass(frozen=True)
class Call:
    """`grid` are the frames of the call, and rows and columns of the block's tokens; `kind` one of those above.

    `rope(first, frames, size)` are full tables of frames from a position on, of squares of size x size of the tokens.
    """

    grid: Grid
    chunks: Chunks
    kind: str
    rope: Callable[[int, int, int], Rope]

    @property
    def tokens(self) -> int:
        """Tokens of a frame."""
        return self.grid[1] * self.grid[2]

    @property
    def streams(self) -> bool:
        """True where a state is given to the next call."""
        return self.kind != WHOLE_CLIP

    @property
    def continues(self) -> bool:
        """True where a state is taken."""
        return self.kind == NEXT

    def ranges(self) -> list[tuple[int, int]]:
        """The first frame of each chunk of this call, and that behind its last one."""
        frames, size = self.grid[0], self.chunks.frames
        if self.continues:
            return [(0, frames)]
        return [(0, 1), *((start, start + size) for start in range(1, frames, size))]


def packed(x: Heads) -> Packed:
    """Heads as channels, one head after the other."""
    return x.flatten(0, 1)[None]


def ages(past: int, frames: int, tokens: int) -> Float[Tensor, "1 1 1 m"]:
    """How many frames must be before a call for each token of the `past` ones and of its own to exist."""
    needed = [*range(past, 0, -1), *[0] * frames]
    return torch.tensor(needed, dtype=torch.float32).repeat_interleave(tokens)[None, None, None]


def exist(frames_before: Float[Tensor, "1 1 1 1"], needed: Float[Tensor, "1 1 1 m"]) -> Float[Tensor, "1 1 1 m"]:
    """1 for tokens that the stream has, 0 for those before its start."""
    return (frames_before - needed + 1).clamp(0, 1)


def last_tokens(x: Heads, count: int, of: int) -> Float[Tensor, "1 hd 1 m"]:
    """The last tokens `of` so many of all heads, behind zeros where there are fewer."""
    return packed(functional.pad(x, (count - of, 0)) if count > of else x[..., of - count :])
