"""What a sampler meets on its way for held-out captions: the scores of gates, and the noisy latents of each step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.diffusion.carry import Carry
from mobile_video_jax.diffusion.guidance import EmptyCaption, Guidance, guided, null_text
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.gates import Gates, plain_scores
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.nn.module import apply

Captions = dict[str, jax.Array]  # `text` states and `text_mask` of a batch


def gate_scores(
    dit: Dit, config: SampleConfig, params: Any, gates: Gates, batch: Captions, seed: int, empty: EmptyCaption | None
) -> Float[np.ndarray, "s l 2 h"]:
    """Mean scores at the states of the whole network's sampler; h halves: with captions and, if guided, without."""

    def evaluate(scores: Any, step: jax.Array, params: Any, *inputs: Any) -> tuple[Latents, Any]:
        velocity, each = plain_scores(dit, params, gates[step], *inputs)
        halves = jnp.mean(each.reshape(scores.shape[-1], -1, *each.shape[1:]), axis=1)
        return velocity, scores.at[step].set(jnp.moveaxis(halves, 0, -1))

    zero = jnp.zeros((*gates.shape[:3], 1 if config.guidance == 1 else 2))
    return np.asarray(_along(evaluate, zero, config, params, batch, seed, empty))


def step_states(
    dit: Dit, config: SampleConfig, params: Any, batch: Captions, seed: int, empty: EmptyCaption | None
) -> Float[np.ndarray, "s b lt lh lw c"]:
    """The noisy latents that each step of an unguided sampler starts from."""

    def evaluate(states: Any, step: jax.Array, params: Any, x_t: Latents, *inputs: Any) -> tuple[Latents, Any]:
        return apply(dit, params, x_t, *inputs), states.at[step].set(x_t)

    zero = jnp.zeros((config.steps, *batch["latents"].shape))
    return np.asarray(_along(evaluate, zero, config, params, batch, seed, empty))


def _along(
    evaluate: Any,
    zero: Float[Array, "s *n"],
    config: SampleConfig,
    params: Any,
    batch: Captions,
    seed: int,
    empty: EmptyCaption | None,
) -> jax.Array:
    """The value that evaluate(value, step, params, *inputs) -> (velocity, value) has after the sampler's last step."""
    grid = {name: getattr(config, name) for name in ("steps", "shift", "terminal", "schedule", "times", "solver")}

    @jax.jit
    def run(params: Any, text: jax.Array, mask: jax.Array) -> jax.Array:
        carry = Carry((jnp.zeros((), jnp.int32), zero))

        def network(*inputs: Any) -> Any:
            step, value = carry.value
            velocity, value = evaluate(value, step, params, *inputs)
            carry.value = step + 1, value
            return velocity

        noise = jax.random.normal(jax.random.key(seed), batch["latents"].shape)
        velocity = guided(network, text, mask, Guidance(config.guidance), null_text(text, mask, empty))
        sample(velocity, noise, scan=carry.scan, **grid)
        after: jax.Array = carry.value[1]
        return after

    after: jax.Array = run(params, batch["text"], batch["text_mask"])
    return after
