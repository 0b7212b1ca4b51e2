"""What guided clips lose where sampling steps have the outputs of the step before: by run of steps, and by table."""

import dataclasses
import functools
import math
from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.diffusion.carry import Carry
from mobile_video_jax.diffusion.guidance import EmptyCaption, Guidance, guided, null_text
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.replaced import Module
from mobile_video_jax.dit.step_table import BOTH, COMPUTED, MODULES, letters
from mobile_video_jax.dit.stepwise import Index, Stepwise
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.stream import Conditions
from mobile_video_jax.lazy.runs import Run, table_of
from mobile_video_jax.lazy.trajectories import Captions
from mobile_video_jax.models.denoiser import Denoiser

Known = MutableMapping[str, Any]  # squared errors that are measured, by what of
Letters = Int[Array, "steps l 2"]  # indices in LETTERS


class Position(NamedTuple):
    """Where a sampler is between two steps: its latents, and all that its next step needs."""

    latents: Latents
    carried: Any


@dataclasses.dataclass(frozen=True)
class PlainSampler:
    """A network's guided sampler for held-out captions, whose steps compute all, from noise of one seed."""

    denoiser: Denoiser
    config: SampleConfig
    params: Any
    captions: Captions
    empty: EmptyCaption | None
    seed: int

    def run_errors(self, longest: int, known: Known) -> dict[Run, float]:
        """The mean squared change of finished latents by each run of up to `longest` steps that reuse all.

        Only what `known` does not hold is measured, and is put there.
        """
        steps, plain, at = self.config.steps, self._start, 0
        errors: dict[Run, float] = {}
        computed, reused = self._letters([]), self._letters([(1, steps - 1)])
        progress = Progress("runs:", steps)
        for first in range(1, steps):
            runs = [(first, length) for length in range(1, min(longest, steps - first) + 1)]
            if any(str(run) not in known for run in runs):
                plain, at = self._advance(plain, computed, at, first), first
                after = plain
                for step, run in enumerate(runs, first):
                    after = self._advance(after, reused, step, step + 1)
                    known[str(run)] = _mean_square(self._finish(after, computed, step + 1) - self._whole)
                progress.report(first + 1, "steps")
            errors |= {run: known[str(run)] for run in runs}
        return errors

    def error(self, table: Sequence[str]) -> float:
        """The mean squared change of finished latents by a table of the letters COMPUTED and BOTH."""
        own = jnp.asarray(letters(table, guided=True))
        return _mean_square(self._finish(self._start, own, 0) - self._whole)

    def distance(self, table: Sequence[str]) -> float:
        """Root mean square difference of a table's finished latents from the plain ones, over their own."""
        return math.sqrt(self.error(table) / _mean_square(self._whole))

    @functools.cached_property
    def _whole(self) -> Latents:
        return self._finish(self._start, self._letters([]), 0)

    @functools.cached_property
    def _start(self) -> Position:
        return self._advance(None, self._letters([]), 0, 0)

    def _letters(self, runs: Sequence[Run]) -> Letters:
        depth = len(self.denoiser.network.config.block_shapes)
        return jnp.asarray(letters(table_of(runs, self.config.steps, depth), guided=True))

    def _finish(self, position: Position, table: Letters, step: int) -> Latents:
        return self._advance(position, table, step, self.config.steps).latents

    def _advance(self, before: Position | None, table: Letters, first: int, end: int) -> Position:
        text, mask = self.captions["text"], self.captions["text_mask"]
        noise = jax.random.normal(jax.random.key(self.seed), self.captions["latents"].shape)
        conditions = text, mask, null_text(text, mask, self.empty)
        carried, span = before.carried if before else None, jnp.array([first, end])
        position: Position = _advanced(self.denoiser, self.config, self.params, carried, table, span, noise, conditions)
        return position


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advanced(
    denoiser: Denoiser,
    config: SampleConfig,
    params: Any,
    carried: Any,
    table: Letters,
    span: Int[Array, "2"],
    noise: Latents,
    conditions: Conditions,
) -> Position:
    """The position behind the steps `span` of a sampler that has `carried` before them; before any step if None."""
    text, mask, negative = conditions
    depth = len(denoiser.network.config.block_shapes)

    def decide(step: Index, module: Module) -> Index:
        return table[step, module.block, MODULES.index(module.name)]

    stepwise = Stepwise(denoiser.network, decide, ((COMPUTED + BOTH,) * len(MODULES),) * depth)
    inputs = (noise, noise[:, 0, 0, 0, 0], text, mask)
    state = stepwise.first_state(params, *(jnp.concatenate([x, x]) for x in inputs))
    carry, ends = Carry(state), []

    def network(*inputs: Any) -> Latents:
        velocity, carry.value = stepwise(params, carry.value, *inputs)
        return velocity

    def scan(body: Any, init: Any, inputs: Any) -> tuple[Any, None]:
        """The steps `span` alone."""

        def step(i: Index, both: tuple[Any, Any]) -> tuple[Any, Any]:
            own, carry.value = both
            own, _ = body(own, jax.tree.map(lambda x: x[i], inputs))
            return own, carry.value

        ends.append((init, state) if carried is None else jax.lax.fori_loop(span[0], span[1], step, carried))
        return ends[-1][0], None

    guidance = Guidance(config.guidance, rescale=config.guidance_rescale)
    grid = {name: getattr(config, name) for name in ("steps", "shift", "terminal", "schedule", "times", "solver")}
    latents = sample(guided(network, text, mask, guidance, negative), noise, scan=scan, **grid)
    return Position(latents, ends[-1])


def _mean_square(latents: Latents) -> float:
    return float(jnp.mean(latents**2))
