"""Image to video: clips whose first latent frame is given, so that only the others are drawn.

The given frame stands in the noisy latents as it is, at time 0, while the others have the clip's time; clips of one
batch may differ in whether theirs is `given`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Latents, TextMask, TextStates, Times
from mobile_video_jax.diffusion.guidance import ConditionalVelocity
from mobile_video_jax.diffusion.samplers import Velocity

Given = Bool[Array, "b"]


def frame_times(t: Times, latent_frames: int, given: Given) -> Float[Array, "b lt"]:
    """The time of each latent frame: the clip's own, but 0 (data) in frame 0 of clips where that frame is given."""
    times = jnp.broadcast_to(t[:, None], (t.shape[0], latent_frames))
    return times.at[:, 0].set(jnp.where(given, 0.0, t))


def insert_first_frame(noise: Latents, first: Float[Array, "b 1 lh lw c"], given: Given) -> Latents:
    """The noise with each given frame in its place."""
    return jnp.where(_places(given, noise), first, noise)


def condition_on_first_frame(denoiser: ConditionalVelocity, given: Given) -> ConditionalVelocity:
    """The denoiser of x_t that holds given frames: it sees their time, 0, and lets them stand.

    With velocity 0 their x0 prediction is the frame itself, in both passes of guidance, which rescales by its spread.
    """

    def velocity(x_t: Latents, t: Times, text: TextStates, mask: TextMask) -> Latents:
        both = jnp.tile(given, x_t.shape[0] // given.shape[0])  # guidance doubles the batch
        predicted = denoiser(x_t, frame_times(t, x_t.shape[1], both), text, mask)
        return jnp.where(_places(both, x_t), 0.0, predicted)

    return velocity


def freeze_first_frame(velocity: Velocity, given: Given) -> Velocity:
    """The velocity that never moves a given frame; a rescaled guidance alone would."""
    return lambda x_t, t: jnp.where(_places(given, x_t), 0.0, velocity(x_t, t))


def _places(given: Given, latents: Latents) -> Bool[Array, "b lt 1 1 1"]:
    """True in frame 0 of clips where it is given."""
    first = jnp.arange(latents.shape[1]) == 0
    return (given[:, None] & first)[..., None, None, None]
