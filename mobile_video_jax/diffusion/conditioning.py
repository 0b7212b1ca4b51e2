"""Image to video: clips whose first latent frame is a conditioning frame, so that only the others are generated.

The conditioning frame is in the noisy latents as it is, at time 0, while the other frames have the clip's time. Clips
of one batch may differ in whether theirs is `conditioned`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Latents, TextMask, TextStates, Times
from mobile_video_jax.diffusion.guidance import ConditionalVelocity
from mobile_video_jax.diffusion.path import Velocity
from mobile_video_jax.diffusion.samplers import fresh_noise

FirstFrame = Float[Array, "b 1 lh lw c"]
Conditioned = Bool[Array, "b"]  # True where a clip's first latent frame is a conditioning frame


def frame_times(t: Times, latent_frames: int, conditioned: Conditioned) -> Float[Array, "b lt"]:
    """The time of each latent frame: the clip's, but 0 (data) for conditioning frames."""
    times = jnp.broadcast_to(t[:, None], (t.shape[0], latent_frames))
    return times.at[:, 0].set(jnp.where(conditioned, 0.0, t))


def insert_first_frame(noise: Latents, first: FirstFrame, conditioned: Conditioned) -> Latents:
    """Replaces the noise of frame 0 by the conditioning frame."""
    return jnp.where(_first_frame(conditioned, noise), first, noise)


def condition_on_first_frame(velocity: ConditionalVelocity, conditioned: Conditioned) -> ConditionalVelocity:
    """The velocity of x_t that contains conditioning frames: evaluated with their time 0, and 0 at these frames.

    With velocity 0 their x0 prediction is the frame itself, in both passes of guidance, which rescales by its spread.
    """

    def conditioned_velocity(x_t: Latents, t: Times, text: TextStates, mask: TextMask) -> Latents:
        batch_conditioned = jnp.tile(conditioned, x_t.shape[0] // conditioned.shape[0])  # guidance doubles the batch
        predicted = velocity(x_t, frame_times(t, x_t.shape[1], batch_conditioned), text, mask)
        return jnp.where(_first_frame(batch_conditioned, x_t), 0.0, predicted)

    return conditioned_velocity


def hold_first_frame(
    velocity: Velocity, first: FirstFrame, conditioned: Conditioned, seen: Callable[[Times], FirstFrame] | None = None
) -> Velocity:
    """The velocity of x_t whose conditioning frames are `first`, whatever a solver made of them.

    Their own velocity leads back to `first`: it is 0 unless the solver noised them. The other frames see those of
    `seen` at the clip's time, where it is given.
    """

    def conditioned_velocity(x_t: Latents, t: Times) -> Latents:
        clean = insert_first_frame(x_t, first, conditioned)
        back = (x_t - clean) / jnp.maximum(t, 1e-3)[:, None, None, None, None]
        shown = insert_first_frame(x_t, seen(t), conditioned) if seen else clean
        return jnp.where(_first_frame(conditioned, x_t), back, velocity(shown, t))

    return conditioned_velocity


def noised_first_frame(first: FirstFrame, noise: Latents, scale: float) -> Callable[[Times], FirstFrame] | None:
    """t -> the conditioning frame with noise of deviation `scale` t^2, other noise at every t; None for a scale of 0.

    A still frame invites still clips (LTX-Video from 0.9.5 on).
    """
    if not scale:
        return None

    def noised(t: Times) -> FirstFrame:
        fresh = fresh_noise(noise, jax.lax.bitcast_convert_type(t[0].astype(jnp.float32), jnp.uint32))[:, :1]
        return first + scale * jnp.square(t)[:, None, None, None, None] * fresh

    return noised


def _first_frame(conditioned: Conditioned, latents: Latents) -> Bool[Array, "b lt 1 1 1"]:
    """Mask of conditioning frames: True in frame 0 of conditioned clips."""
    first = jnp.arange(latents.shape[1]) == 0
    return (conditioned[:, None] & first)[..., None, None, None]
