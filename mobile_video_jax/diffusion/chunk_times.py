"""Times of the chunks of a clip, of networks that are causal between chunks."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.timesteps import sample_times


def chunk_of_frame(frames: int, size: int) -> list[int]:
    """The chunk of each latent frame: the first chunk has one frame, all others `size`."""
    return [0, *(1 + i // size for i in range(frames - 1))]


def chunk_times(rng: Rng, clips: int, frames: int, size: int, *, shift: float) -> Float[Array, "b lt"]:
    """A time for each chunk (Diffusion Forcing, arXiv 2407.01392); the chunks before a random one are clean, at 0.

    The random chunk sees what generation sees: a chunk of noise behind finished ones. Those behind it learn to stand
    noise in the chunks before them.
    """
    chunks = chunk_of_frame(frames, size)
    count = chunks[-1] + 1
    times = sample_times(named_key(rng, "chunks"), clips * count, shift=shift).reshape(clips, count)
    first_noisy = jax.random.randint(named_key(rng, "first"), (clips, 1), 0, count)
    return jnp.where(jnp.arange(count) < first_noisy, 0.0, times)[:, np.array(chunks)]
