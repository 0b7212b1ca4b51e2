"""Sampling latents with a denoiser: the settings, and the pure function that follows them."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Latents, TextMask, TextStates
from mobile_video_jax.diffusion.conditioning import condition_on_first_frame, hold_first_frame, insert_first_frame
from mobile_video_jax.diffusion.guidance import Guidance, guided
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.nn.module import apply


def sample_latents(
    network: nn.Module,
    config: SampleConfig,
    params: Any,
    noise: Latents,
    text: TextStates,
    mask: TextMask,
    negative: tuple[TextStates, TextMask] | None = None,
    image: tuple[Float[Array, "b 1 lh lw c"], Bool[Array, "b"]] | None = None,
) -> Latents:
    """Normalised latents [b lt lh lw c] for text states, from noise of that shape.

    `negative` holds a negative prompt's states and mask; `image` first latent frames, and which clips start from
    theirs. Raises UserError for settings that do not work, ValueError for a config without times.
    """
    if not config.shift or config.terminal < 0 or not config.schedule:
        raise ValueError("these settings name no times: complete them with SampleConfig.with_times")

    def denoiser(x_t: Any, t: Any, text: Any, mask: Any) -> Any:
        return apply(network, params, x_t, t, text, mask)

    guidance = Guidance(config.guidance, config.guidance_low, config.guidance_high, config.guidance_rescale)
    grid = {name: getattr(config, name) for name in ("steps", "shift", "terminal", "schedule", "times")}
    if image is None:
        velocity = guided(denoiser, text, mask, guidance, negative)
        return sample(velocity, noise, solver=config.solver, **grid)
    first, starts_from_image = image
    noise = insert_first_frame(noise, first, starts_from_image)
    conditioned = condition_on_first_frame(denoiser, starts_from_image)
    velocity = hold_first_frame(guided(conditioned, text, mask, guidance, negative), first, starts_from_image)
    # Not even rounding moves the conditioning frame.
    return insert_first_frame(sample(velocity, noise, solver=config.solver, **grid), first, starts_from_image)
