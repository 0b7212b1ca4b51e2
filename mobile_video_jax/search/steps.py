"""Training steps of a shared network: the layout is data, so that one program serves all layouts and learning rates."""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Scalar
from mobile_video_jax.core.rng import step_key
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.mesh import put_batch, replicated
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.checkpoint import checkpoint_path, newest_step, restore_model, save_model

if TYPE_CHECKING:
    from mobile_video_jax.search.network import NetworkSearch

Tree = TypeVar("Tree")
Params = Any
Numbers = Int[Array, "l"]


@dataclasses.dataclass(frozen=True)
class Partial:
    """A folder for steps that are not finished, written every so many: a stopped search loses no more."""

    folder: Path
    every: int

    def read(self, fresh: Tree) -> tuple[int, Tree]:
        """The steps that are done, and the tree of arrays behind them; 0 and the `fresh` one where there are none."""
        if (done := newest_step(self.folder)) is None:
            return 0, fresh
        leaves, structure = jax.tree.flatten(fresh)
        saved = restore_model(self.folder, _numbered([abstract(x, x.sharding) for x in leaves]), done)
        return done, jax.tree.unflatten(structure, [saved[str(i)] for i in range(len(leaves))])

    def write(self, done: int, tree: Any) -> None:
        """Writes the tree behind so many steps in place of the last one."""
        before = newest_step(self.folder)
        save_model(self.folder, done, _numbered(jax.tree.leaves(tree)))
        if before is not None:
            shutil.rmtree(checkpoint_path(self.folder, before))


def _numbered(leaves: Sequence[Any]) -> dict[str, Any]:
    return {str(i): x for i, x in enumerate(leaves)}


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """Adam's steps on the first training batches, the same for every layout, in the order of `seed`."""

    network: "NetworkSearch"
    stage: DitStage
    mesh: Mesh
    seed: int

    def after(
        self, params: Params, layouts: Iterable[Numbers], rate: float, partial: "Partial | None" = None
    ) -> Params:
        """The shared parameters after a step with each of the layouts; of those in `partial` the first are done."""
        trained = {part: params[part] for part in self.network.trainable}
        params, state = jax.device_put((params, self._optimizer.init(trained)), replicated(self.mesh))
        done = 0
        if partial:
            done, (trained, state) = partial.read(({part: params[part] for part in trained}, state))
            params = params | trained
        for i, (layout, batch) in enumerate(zip(layouts, self.stage.train_batches(self.mesh), strict=False)):
            if i < done:
                continue
            batch.pop("record", None)
            params, state = self._step(params, state, layout, put_batch(batch, self.mesh), (i, rate))
            if partial and (i + 1) % partial.every == 0:
                partial.write(i + 1, ({part: params[part] for part in trained}, state))
        return params

    @functools.cached_property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

    @functools.cached_property
    def _step(self) -> Callable[..., tuple[Params, Any]]:
        def step(
            params: Params, state: Any, layout: Numbers, batch: Any, number_and_rate: tuple[Any, Any]
        ) -> tuple[Params, Any]:
            number, rate = number_and_rate
            noisy = self.stage.training_batch(batch, step_key(self.seed, number))

            def loss(trained: Params) -> Scalar:
                return jnp.mean(noisy.errors(self.network.velocity(params | trained, layout, *noisy.inputs)))

            trained = {part: params[part] for part in self.network.trainable}
            updates, state = self._optimizer.update(jax.grad(loss)(trained), state)
            return params | optax.apply_updates(trained, jax.tree.map(lambda x: -rate * x, updates)), state

        return jax.jit(step)
