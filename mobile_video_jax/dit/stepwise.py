"""A transformer that computes at each sampling step only some of its modules, and otherwise has what it has already."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Latents, Tokens
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.replaced import Key, Module, velocity_with
from mobile_video_jax.dit.step_table import COMPUTED, LETTERS, MODULES, OUT, letters

Index = Int[Array, ""]  # of a letter in LETTERS
# What is decided of a module at a sampling step: the index of its letter.
Decide = Callable[[Index, Module], Index]


class StepState(NamedTuple):
    """What one evaluation hands to the next."""

    step: Index
    outputs: Mapping[Key, Tokens]  # the last ones, of modules that a step may reuse


@dataclasses.dataclass(frozen=True)
class Stepwise:
    """A transformer with a decision per step, block and module, one for all clips of a batch.

    The modules whose work a step does without are not computed. `used[l][m]` are the letters that occur in any step of
    module m of block l; of rows in two halves the first have captions.
    """

    dit: Dit
    decide: Decide
    used: tuple[tuple[str, ...], ...]

    @classmethod
    def of_table(cls, dit: Dit, table: tuple[str, ...], *, guided: bool) -> "Stepwise":
        """Decisions as a table has them; rows are in two halves if `guided`."""
        indices = letters(table, guided=guided)

        def decide(step: Index, module: Module) -> Index:
            return jnp.asarray(indices[:, module.block, MODULES.index(module.name)])[step]

        columns = np.array(list(LETTERS))[indices].transpose(1, 2, 0)
        return cls(dit, decide, tuple(tuple("".join(sorted(set(steps))) for steps in block) for block in columns))

    def first_state(self, params: Any, *inputs: Any, **behind: Any) -> StepState:
        """The state before the first step, for inputs like these; `behind` as for velocity_with."""
        shapes = {}

        def record(module: Module) -> Tokens:
            y = module.compute(module.z)
            if set(self._used(module)) - {COMPUTED, OUT}:
                shapes[module.key] = jax.ShapeDtypeStruct(y.shape, y.dtype)
            return y

        velocity = lambda params, *inputs: velocity_with(self.dit, params, record, *inputs, **behind)
        jax.eval_shape(velocity, params, *inputs)
        return StepState(jnp.zeros((), jnp.int32), {key: jnp.zeros(x.shape, x.dtype) for key, x in shapes.items()})

    def __call__(self, params: Any, state: StepState, *inputs: Any, **behind: Any) -> tuple[Latents, StepState]:
        """The velocity at the state's step, and the next step's state."""
        outputs = dict(state.outputs)

        def replace(module: Module) -> Tokens:
            y = self._output(module, state.step, outputs.get(module.key, module.z))  # z is never reused
            if module.key in outputs:
                outputs[module.key] = y
            return y

        velocity = velocity_with(self.dit, params, replace, *inputs, **behind)
        return velocity, StepState(state.step + 1, outputs)

    def _used(self, module: Module) -> str:
        return self.used[module.block][MODULES.index(module.name)]

    def _output(self, module: Module, step: Index, before: Tokens) -> Tokens:
        used, branches = self._used(module), _branches(module)
        if len(used) == 1:
            return branches[used](module.z, before)
        cases = jnp.array([max(used.find(letter), 0) for letter in LETTERS])
        y: Tokens = jax.lax.switch(
            cases[self.decide(step, module)], [branches[letter] for letter in used], module.z, before
        )
        return y


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
    )
    return dict(zip(LETTERS, every, strict=True))
