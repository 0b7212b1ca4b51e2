"""LazyDiT's gates (arXiv 2412.12444): scores by which a module has its output of the sampling step before."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents, Tokens
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.replaced import Key, Module, velocity_with
from mobile_video_jax.dit.step_table import BOTH, CAPTION, COMPUTED, LETTERS, MODULES, NULL
from mobile_video_jax.dit.stepwise import Index, Stepwise

Gates = Float[Array, "s l 2 d"]  # one vector for each step, block and module of MODULES
Scores = Float[Array, "b l 2"]
ClipScores = Float[Array, "b"]
THRESHOLD = 0.5  # score above which the output is reused


def score(gate: Float[Array, "#b d"], z: Tokens) -> ClipScores:
    """sigmoid(sum over tokens of z w), with a vector w for all clips or one for each."""
    return jax.nn.sigmoid(jnp.einsum("bd,bd->b", jnp.sum(z.astype(jnp.float32), axis=1), gate * jnp.ones((len(z), 1))))


def plain_outputs(dit: Dit, params: Any, *inputs: Any) -> tuple[Latents, dict[Key, Tokens]]:
    """The velocity, and the output of each module."""
    outputs = {}

    def record(module: Module) -> Tokens:
        outputs[module.key] = y = module.compute(module.z)
        return y

    return velocity_with(dit, params, record, *inputs), outputs


def mixed_velocity(
    dit: Dit, params: Any, gates: Float[Array, "b l 2 d"], before: dict[Key, Tokens], *inputs: Any
) -> tuple[Latents, Scores]:
    """The velocity with outputs (1 - s) F(z) + s Y of the step before, and the scores s; each clip has its own gates.

    That is how gates are trained, as mixing has a gradient and skipping has none.
    """
    scores: dict[Key, ClipScores] = {}

    def mix(module: Module) -> Tokens:
        scores[module.key] = score(gates[:, module.block, MODULES.index(module.name)], module.z)
        s = scores[module.key][:, None, None].astype(module.z.dtype)
        return (1 - s) * module.compute(module.z) + s * before[module.key]

    velocity = velocity_with(dit, params, mix, *inputs)
    return velocity, _stacked(scores)


def plain_scores(dit: Dit, params: Any, gates: Float[Array, "l 2 d"], *inputs: Any) -> tuple[Latents, Scores]:
    """The velocity of the whole network, and the scores that a step's gates give its modules."""
    scores: dict[Key, ClipScores] = {}

    def record(module: Module) -> Tokens:
        gate = gates[module.block, MODULES.index(module.name)]
        scores[module.key] = score(gate[None], module.z)
        return module.compute(module.z)

    return velocity_with(dit, params, record, *inputs), _stacked(scores)


def gated(dit: Dit, gates: Gates, *, guided: bool) -> Stepwise:
    """A transformer whose modules are reused where the mean score of a half's clips is above THRESHOLD.

    A clip then depends on the others of its batch; a table, frozen from the gates, does not have this.
    """

    def decide(step: Index, module: Module) -> Index:
        scores = score(gates[step, module.block, MODULES.index(module.name)][None], module.z)
        halves = jnp.mean(scores.reshape(2 if guided else 1, -1), axis=1) > THRESHOLD
        by_halves = jnp.array([[LETTERS.index(letter) for letter in row] for row in (COMPUTED + NULL, CAPTION + BOTH)])
        # Nothing is known before the first step.
        return jnp.where(step == 0, LETTERS.index(COMPUTED), by_halves[halves[0].astype(int), halves[-1].astype(int)])

    used = COMPUTED + CAPTION + NULL + BOTH if guided else COMPUTED + BOTH
    depth = len(dit.config.block_shapes)
    return Stepwise(dit, decide, ((used,) * len(MODULES),) * depth)


def _stacked(scores: dict[Key, ClipScores]) -> Scores:
    depth = 1 + max(block for block, _ in scores)
    return jnp.stack([jnp.stack([scores[block, name] for name in MODULES], axis=1) for block in range(depth)], axis=1)
