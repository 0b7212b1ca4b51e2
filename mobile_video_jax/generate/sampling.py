"""Sampling latents with a denoiser: the settings, and the pure function that follows them."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import Latents, TextMask, TextStates
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.carry import Carry
from mobile_video_jax.diffusion.conditioning import (
    condition_on_first_frame,
    hold_first_frame,
    insert_first_frame,
    noised_first_frame,
)
from mobile_video_jax.diffusion.experts import by_time
from mobile_video_jax.diffusion.guidance import ConditionalVelocity, Guidance, guided
from mobile_video_jax.diffusion.hook import Hook, Scan, unchanged
from mobile_video_jax.diffusion.path import Velocity
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.middle import without_middle
from mobile_video_jax.dit.step_table import check_step_table, of_whole_clips
from mobile_video_jax.dit.stepwise import ChunkOutputs, Stepwise
from mobile_video_jax.dit.token_drop import params_without_middle
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
    hook: Hook = unchanged,
) -> Latents:
    """Normalised latents [b lt lh lw c] for text states, from noise of that shape.

    `params` are the network's; where the config has a boundary, a pair, of the experts of high and of low noise.

    `negative` holds a negative prompt's states and mask; `image` first latent frames, and which clips start from
    theirs; `hook` may change x_t at every step. Raises UserError for settings that do not work, such as a table of
    another depth, ValueError for a config without times.
    """
    if not config.shift or config.terminal < 0 or not config.schedule:
        raise ValueError("these settings name no times: complete them with SampleConfig.with_times")

    scan: Scan = jax.lax.scan
    networks = params if config.boundary else (params,)
    denoisers: list[ConditionalVelocity] = [functools.partial(apply, network, each) for each in networks]
    weak = _without_middle(network, params) if config.path_drop and config.guidance != 1 else None
    if config.reuse:
        denoisers[0], carry = reusing(network, config, params, (noise, text, mask))
        scan = carry.scan
    grid = {name: getattr(config, name) for name in ("steps", "shift", "terminal", "schedule", "times")}
    if image is None:
        velocity = _guided(denoisers, config, text, mask, negative, weak)
        return sample(velocity, noise, solver=config.solver, hook=hook, scan=scan, **grid)
    first, starts_from_image = image
    noise = insert_first_frame(noise, first, starts_from_image)
    conditioned = [condition_on_first_frame(denoiser, starts_from_image) for denoiser in denoisers]
    weak = condition_on_first_frame(weak, starts_from_image) if weak else None
    seen = noised_first_frame(first, noise, config.image_noise)
    velocity = hold_first_frame(
        _guided(conditioned, config, text, mask, negative, weak), first, starts_from_image, seen
    )
    # Not even rounding moves the conditioning frame.
    return insert_first_frame(
        sample(velocity, noise, solver=config.solver, hook=hook, scan=scan, **grid), first, starts_from_image
    )


def _guided(
    denoisers: Sequence[ConditionalVelocity],
    config: SampleConfig,
    text: TextStates,
    mask: TextMask,
    negative: tuple[TextStates, TextMask] | None,
    weak: ConditionalVelocity | None,
) -> Velocity:
    """The guided velocity of the network, or of the experts of high and of low noise."""
    scales = (config.guidance, config.guidance_2 or config.guidance)
    interval = (config.guidance_low, config.guidance_high, config.guidance_rescale)
    velocities = [
        guided(denoiser, text, mask, Guidance(scale, *interval), negative, weak)
        for denoiser, scale in zip(denoisers, scales, strict=False)
    ]
    return by_time(*velocities, boundary=config.boundary) if config.boundary else velocities[0]


def _without_middle(network: Any, params: Any) -> ConditionalVelocity:
    """The transformer's first and last blocks alone. Raises UserError for a network that cannot do without others."""
    config = network.config
    if not isinstance(config, DitConfig):
        raise UserError("path_drop is for transformers: leave it out")
    return functools.partial(apply, network.clone(config=without_middle(config)), params_without_middle(params, config))


def reusing(
    network: Any,
    config: SampleConfig,
    params: Any,
    conditions: tuple[Latents, TextStates, TextMask],
    chunk: ChunkOutputs | None = None,
    **behind: Any,
) -> tuple[ConditionalVelocity, Carry]:
    """The network that computes what the config's table says, and what carries its state, a StepState.

    `conditions` are noise, text states and mask of the clips, or of the chunks of a stream `behind` its state. `chunk`
    are the outputs of the chunk before, {} where it has none that can be reused; None where there is no such chunk.
    """
    check_step_table(config.reuse, len(network.config.block_shapes))
    is_guided = config.guidance != 1
    table = of_whole_clips(config.reuse) if chunk is None else config.reuse
    stepwise = Stepwise.of_table(network, table, guided=is_guided, continues=bool(chunk))
    noise, text, mask = conditions
    inputs = (noise, noise[:, 0, 0, 0, 0], text, mask)
    rows = [jnp.concatenate([x] * (1 + is_guided)) for x in inputs]
    carry = Carry(stepwise.first_state(params, *rows, chunk=chunk, **behind))

    def denoiser(*inputs: Any) -> Latents:
        velocity, carry.value = stepwise(params, carry.value, *inputs, **behind)
        return velocity

    return denoiser, carry
