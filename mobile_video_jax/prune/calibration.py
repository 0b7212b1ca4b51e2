"""The fixed noisy clips on which units are scored."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import LatentMask, Latents, Rng, TextMask, TextStates, Times
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.guidance import EmptyCaption, drop_captions
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.timesteps import stratified_times


class Calibration(NamedTuple):
    """A batch of the network's inputs; `mask` is False where a clip is padding."""

    x_t: Latents
    t: Times
    text: TextStates
    text_mask: TextMask
    mask: LatentMask | None = None


def calibration(
    batch: dict[str, Any],
    rng: Rng,
    *,
    times: int,
    shift: float,
    caption_dropout: float = 0.0,
    empty: EmptyCaption | None = None,
) -> Calibration:
    """The batch's clips, each `times` times: once in each stratum of the training times, with its own noise.

    Strata are equal shares of the logit-normal distribution, moved by `shift`; within one, the b clips are at its
    (i + 1/2) / b quantiles. Rows of one clip are neighbours. A row has no caption with probability `caption_dropout`,
    as guidance needs the network without one too. `batch` holds latents, text, text_mask and, for clips with padding,
    latent_mask.
    """
    rows = {key: jnp.repeat(jnp.asarray(value), times, axis=0) for key, value in batch.items()}
    x0 = rows["latents"]
    t = stratified_times(x0.shape[0], shift=shift).reshape(times, -1).T.reshape(-1)
    x_t = interpolate(x0, jax.random.normal(named_key(rng, "noise"), x0.shape), t)
    text = drop_captions(named_key(rng, "captions"), rows["text"], rows["text_mask"], caption_dropout, empty)
    return Calibration(x_t, t, *text, rows.get("latent_mask"))
