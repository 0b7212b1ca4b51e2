"""A transformer that computes at each sampling step only some of its modules, and otherwise has what it has already."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Latents, Tokens
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.replaced import Key, Module, velocity_with
from mobile_video_jax.dit.step_table import CHUNK, COMPUTED, LETTERS, MODULES, OUT, letters

Index = Int[Array, ""]  # of a letter in LETTERS
# What is decided of a module at a sampling step: the index of its letter.
Decide = Callable[[Index, Module], Index]
# The outputs of a stream's chunk at the steps of a module whose letter is CHUNK.
ChunkOutputs = Mapping[Key, Float[Array, "_ _ _ d"]]


class StepState(NamedTuple):
    """What one evaluation hands to the next."""

    step: Index
    outputs: Mapping[Key, Tokens]  # the last ones, of modules that a step may reuse
    chunk: ChunkOutputs  # of the chunk before, or of this one as far as it is


@dataclasses.dataclass(frozen=True)
class Stepwise:
    """A transformer with a decision per step, block and module, one for all clips of a batch.

    The modules whose work a step does without are not computed. `used[l][m]` are the letters that occur in any step of
    module m of block l; of rows in two halves the first have captions. `places[l][m]` are for each step its place in
    ChunkOutputs, the number of steps where its letter is not CHUNK; they are read if `continues`, else written.
    """

    dit: Dit
    decide: Decide
    used: tuple[tuple[str, ...], ...]
    places: tuple[tuple[tuple[int, ...], ...], ...] = ()
    continues: bool = False

    @classmethod
    def of_table(cls, dit: Dit, table: tuple[str, ...], *, guided: bool, continues: bool = False) -> "Stepwise":
        """Decisions as a table has them; rows are in two halves if `guided`."""
        indices = letters(table, guided=guided)

        def decide(step: Index, module: Module) -> Index:
            return jnp.asarray(indices[:, module.block, MODULES.index(module.name)])[step]

        columns = np.array(list(LETTERS))[indices].transpose(1, 2, 0)
        used = tuple(tuple("".join(sorted(set(steps))) for steps in block) for block in columns)
        reused = indices == LETTERS.index(CHUNK)
        places = np.where(reused, np.cumsum(reused, axis=0) - 1, len(table)).transpose(1, 2, 0)
        return cls(dit, decide, used, tuple(tuple(map(tuple, block)) for block in places.tolist()), continues)

    def first_state(self, params: Any, *inputs: Any, chunk: ChunkOutputs | None = None, **behind: Any) -> StepState:
        """The state before the first step, for inputs like these; `behind` as for velocity_with.

        `chunk` are the outputs of the chunk before, of one that continues a stream.
        """
        shapes, kept = {}, {}

        def record(module: Module) -> Tokens:
            y = module.compute(module.z)
            if set(self._used(module)) - {COMPUTED, OUT, CHUNK}:
                shapes[module.key] = jax.ShapeDtypeStruct(y.shape, y.dtype)
            if CHUNK in self._used(module):
                kept[module.key] = jax.ShapeDtypeStruct((self._count(module), *y.shape), y.dtype)
            return y

        velocity = lambda params, *inputs: velocity_with(self.dit, params, record, *inputs, **behind)
        jax.eval_shape(velocity, params, *inputs)
        before = chunk if self.continues and chunk else _zeros(kept)
        return StepState(jnp.zeros((), jnp.int32), _zeros(shapes), before)

    def __call__(self, params: Any, state: StepState, *inputs: Any, **behind: Any) -> tuple[Latents, StepState]:
        """The velocity at the state's step, and the next step's state."""
        outputs, chunk = dict(state.outputs), dict(state.chunk)

        def replace(module: Module) -> Tokens:
            key = module.key
            y = self._output(module, state)
            if key in outputs:
                outputs[key] = y
            if key in chunk and not self.continues:
                chunk[key] = chunk[key].at[self._place(module, state.step)].set(y, mode="drop")
            return y

        velocity = velocity_with(self.dit, params, replace, *inputs, **behind)
        return velocity, StepState(state.step + 1, outputs, chunk)

    def _used(self, module: Module) -> str:
        return self.used[module.block][MODULES.index(module.name)]

    def _count(self, module: Module) -> int:
        """The steps of a module that have outputs of the chunk before."""
        places = self.places[module.block][MODULES.index(module.name)]
        return sum(place < len(places) for place in places)

    def _place(self, module: Module, step: Index) -> Index:
        return jnp.asarray(self.places[module.block][MODULES.index(module.name)])[step]

    def _output(self, module: Module, state: StepState) -> Tokens:
        used, branches = self._used(module), _branches(module)
        if self.continues and CHUNK in used:
            past = state.chunk[module.key]
            branches[CHUNK] = lambda z, before: past[self._place(module, state.step)]
        before = state.outputs.get(module.key, module.z)  # z is never reused
        if len(used) == 1:
            return branches[used](module.z, before)
        cases = jnp.array([max(used.find(letter), 0) for letter in LETTERS])
        y: Tokens = jax.lax.switch(
            cases[self.decide(state.step, module)], [branches[letter] for letter in used], module.z, before
        )
        return y


def _zeros(shapes: Mapping[Key, jax.ShapeDtypeStruct]) -> dict[Key, jax.Array]:
    return {key: jnp.zeros(x.shape, x.dtype) for key, x in shapes.items()}


def _branches(module: Module) -> dict[str, Callable[[Tokens, Tokens], Tokens]]:
    """The module's output for its input and the output before, by letter."""

    def caption_reused(z: Tokens, before: Tokens) -> Tokens:
        half = z.shape[0] // 2
        return jnp.concatenate([before[:half], module.compute(z, slice(half, None))])

    def null_reused(z: Tokens, before: Tokens) -> Tokens:
        half = z.shape[0] // 2
        return jnp.concatenate([module.compute(z, slice(half)), before[half:]])

    every = (
        lambda z, before: module.compute(z),
        caption_reused,
        null_reused,
        lambda z, before: before,
        lambda z, before: module.empty,
        lambda z, before: module.compute(z),
    )
    return dict(zip(LETTERS, every, strict=True))
