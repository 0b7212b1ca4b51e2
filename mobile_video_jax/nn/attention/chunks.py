"""Chunks of a clip's frames: the first has one frame, as a VAE's first latent frame is one frame, all others as many.

A causal kind of attention computes a chunk from itself and the frames before it, so that a clip can be generated chunk
by chunk. Arrays of frames are [b, t, ...]; a call that continues a clip gets whole chunks.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mobile_video_jax.nn.attention.config import Chunks, Grid
from mobile_video_jax.nn.stream import continues, with_past

Frames = Shaped[Array, "b t *rest"]
ChunkFrames = Shaped[Array, "b c f *rest"]  # f frames of each of c chunks


@dataclasses.dataclass(frozen=True)
class Call:
    """The chunks of one call: `size` frames each, `lead` of which are padding before the first frame of a clip."""

    size: int
    lead: int

    def padded(self, x: Frames) -> Shaped[Array, "b whole *rest"]:
        """The call's frames as whole chunks, behind zeros."""
        return jnp.pad(x, [(0, 0), (self.lead, 0)] + [(0, 0)] * (x.ndim - 2)) if self.lead else x

    def grouped(self, x: Frames) -> ChunkFrames:
        """Whole chunks of frames, chunk by chunk."""
        return x.reshape(x.shape[0], -1, self.size, *x.shape[2:])

    def flat(self, x: ChunkFrames) -> Frames:
        """The call's frames, of a result in chunks."""
        return x.reshape(x.shape[0], -1, *x.shape[3:])[:, self.lead :]


def chunks_of_call(module: nn.Module, chunks: Chunks, frames: int) -> Call:
    """The chunks of this call of a module, which starts a clip or continues one."""
    begun = continues(module)
    if not begun and frames == 1:
        return Call(1, 0)
    return Call(chunks.frames, 0 if begun else chunks.frames - 1)


def windows(module: nn.Module, x: Frames, call: Call, past: int, *, name: str) -> Shaped[Array, "b c f *rest"]:
    """For each chunk its frames behind the `past` frames before them; zeros where a clip has none."""
    x = with_past(module, call.padded(x), past, zeros=True, name=name)
    starts = range(0, x.shape[1] - past, call.size)
    return jnp.stack([x[:, start : start + past + call.size] for start in starts], axis=1)


def key_windows(
    module: nn.Module, grid: Grid, mask: Bool[Array, "b n"] | None, call: Call, past: int, batch: int
) -> Bool[Array, "b c m"]:
    """True for the keys of each chunk's window that are neither padding nor before the clip."""
    frames = jnp.ones((batch, grid[0], grid[1] * grid[2]), bool) if mask is None else mask.reshape(batch, grid[0], -1)
    valid = windows(module, frames, call, past, name="valid")
    return valid.reshape(*valid.shape[:2], -1)


def by_frame(x: Float[Array, "b n *rest"], grid: Grid) -> Float[Array, "b t p *rest"]:
    """Tokens by frame."""
    return x.reshape(x.shape[0], grid[0], -1, *x.shape[2:])
