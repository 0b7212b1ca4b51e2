"""How latents are drawn with a transformer: the settings, and the pure function that follows them."""

from typing import Any

from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Latents, TextMask, TextStates
from mobile_video_jax.diffusion.conditioning import condition_on_first_frame, freeze_first_frame, insert_first_frame
from mobile_video_jax.diffusion.guidance import Guidance, guided
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.nn.module import apply


def sample_latents(
    dit: Dit,
    config: SampleConfig,
    params: Any,
    noise: Latents,
    text: TextStates,
    mask: TextMask,
    negative: tuple[TextStates, TextMask] | None = None,
    image: tuple[Float[Array, "b 1 lh lw c"], Bool[Array, "b"]] | None = None,
) -> Latents:
    """Normalised latents drawn from noise for text states.

    `negative` holds a negative prompt's states and mask; `image` first latent frames and which clips start from
    theirs, the others being drawn freely. Raises UserError for settings that do not work.
    """

    def denoiser(x_t: Any, t: Any, text: Any, mask: Any) -> Any:
        return apply(dit, params, x_t, t, text, mask)

    guidance = Guidance(config.guidance, config.guidance_low, config.guidance_high, config.guidance_rescale)
    if image is None:
        velocity = guided(denoiser, text, mask, guidance, negative)
    else:
        first, given = image
        noise = insert_first_frame(noise, first, given)
        velocity = freeze_first_frame(
            guided(condition_on_first_frame(denoiser, given), text, mask, guidance, negative), given
        )
    grid: dict[str, Any] = {"steps": config.steps, "shift": config.shift, "terminal": config.terminal}
    return sample(velocity, noise, solver=config.solver, **grid)
