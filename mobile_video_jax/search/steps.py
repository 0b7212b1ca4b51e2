"""Training steps of a shared network: the layout is data, so that one program serves all layouts and learning rates."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Scalar
from mobile_video_jax.core.rng import step_key
from mobile_video_jax.parallel.mesh import put_batch, replicated
from mobile_video_jax.stages.dit import DitStage

if TYPE_CHECKING:
    from mobile_video_jax.search.network import NetworkSearch

Params = Any
Numbers = Int[Array, "l"]


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """Adam's steps on the first training batches, the same for every layout, in the order of `seed`."""

    network: "NetworkSearch"
    stage: DitStage
    mesh: Mesh
    seed: int

    def after(self, params: Params, layouts: Iterable[Numbers], rate: float) -> Params:
        """The shared parameters after a step with each of the layouts."""
        trained = {part: params[part] for part in self.network.trainable}
        params, state = jax.device_put((params, self._optimizer.init(trained)), replicated(self.mesh))
        for i, (layout, batch) in enumerate(zip(layouts, self.stage.train_batches(self.mesh), strict=False)):
            batch.pop("record", None)
            params, state = self._step(params, state, layout, put_batch(batch, self.mesh), (i, rate))
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
