"""Held-out losses of layouts, clip by clip, with the supernet's parameters or after some steps of training."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float64, Int

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key, step_key
from mobile_video_jax.diffusion.timesteps import stratified_times
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.distributed import to_hosts
from mobile_video_jax.parallel.mesh import put_batch, replicated
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.space import Choice, Layout, as_text
from mobile_video_jax.search.supernet import Params, Supernet
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.noisy_batch import NoisyBatch, noisy_batch
from mobile_video_jax.train.held_out import WEIGHT

ClipLosses = Float64[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True)
class LayoutLosses:
    """The held-out flow-matching losses of layouts, all on the same clips, times and noise.

    The layout is data: two programs, of evaluation and of a training step, serve all.
    """

    config: SearchConfig
    stage: DitStage
    params: Params  # of the supernet
    mesh: Mesh
    memo: MutableMapping[str, Any] = dataclasses.field(default_factory=dict)  # losses by layout and steps
    progress: Callable[[], object] = lambda: None  # called before each evaluation that is not in the memo

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The choices of the supernet, by number."""
        names = (name.rpartition("/") for name in self.params["variants"])
        return tuple(Choice(kind, int(resolution)) for kind, _, resolution in names)

    def clips(self, layout: Layout, steps: int = 0) -> ClipLosses:
        """The loss of each held-out clip, the mean over times, after so many steps of training."""
        key = f"{as_text(layout)} after {steps} steps"
        if key not in self.memo:
            self.progress()
            self.memo[key] = self._evaluated(layout, steps).tolist()
        return np.array(self.memo[key])

    def mean(self, layout: Layout, steps: int = 0) -> float:
        """The mean over clips."""
        return float(self.clips(layout, steps).mean())

    def _evaluated(self, layout: Layout, steps: int) -> ClipLosses:
        numbers = jnp.array([self.choices.index(choice) for choice in layout])
        params = self._trained(numbers, steps) if steps else self.params
        losses = [
            to_hosts(self._clip_losses(params, numbers, batch, jax.random.fold_in(self._key("held out"), i)))
            for i, (batch, _) in enumerate(self._held_out)
        ]
        weights = np.concatenate([weight for _, weight in self._held_out])
        return np.asarray(np.concatenate(losses)[weights > 0], np.float64)

    @functools.cached_property
    def _held_out(self) -> list[tuple[Any, np.ndarray]]:
        """The held-out batches on devices, each with the weights of its clips."""
        batches = []
        for batch in self.stage.eval_batches(self.mesh):
            batch.pop("record", None)
            batches.append((put_batch(batch, self.mesh), np.asarray(batch[WEIGHT])))
        if not batches or sum(weight.sum() for _, weight in batches) < 2:
            raise UserError(f"{self.stage.config.data} holds no two clips for validation: encode data with some")
        return batches

    @functools.cached_property
    def _clip_losses(self) -> Callable[[Params, Int[Array, "l"], Any, Rng], Float[Array, "b"]]:
        def losses(params: Params, layout: Int[Array, "l"], batch: Any, key: Rng) -> Float[Array, "b"]:
            x0, times = batch["latents"], self.config.times
            grid = stratified_times(times * len(x0), shift=self.stage.time_shift(x0)).reshape(times, -1)

            def at(part: tuple[Float[Array, "b"], Rng]) -> Float[Array, "b"]:
                t, key = part
                noisy = noisy_batch(batch, t, batch["text"], batch["text_mask"], key)
                return self._errors(params, layout, noisy)

            return jnp.mean(jax.lax.map(at, (grid, jax.random.split(key, times))), axis=0)

        return jax.jit(losses)

    def _errors(self, params: Params, layout: Int[Array, "l"], noisy: NoisyBatch) -> Float[Array, "b"]:
        network = Supernet(
            self.stage.config.transformer, choices=self.choices, layout=layout, variants=params["variants"]
        )
        return noisy.errors(apply(network, params["rest"], *noisy.inputs))

    def _trained(self, layout: Int[Array, "l"], steps: int) -> Params:
        """The supernet's parameters after steps on the first training batches, the same for every layout."""
        params, state = jax.device_put((self.params, self._optimizer.init(self.params)), replicated(self.mesh))
        for i, batch in enumerate(itertools.islice(self.stage.train_batches(self.mesh), steps)):
            batch.pop("record", None)
            params, state = self._step(params, state, layout, put_batch(batch, self.mesh), i)
        return params

    @functools.cached_property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.config.tune_rate))

    @functools.cached_property
    def _step(self) -> Callable[..., tuple[Params, Any]]:
        def step(
            params: Params, state: Any, layout: Int[Array, "l"], batch: Any, number: int | jax.Array
        ) -> tuple[Params, Any]:
            noisy = self.stage.training_batch(batch, step_key(self.config.seed, number))

            def loss(params: Params) -> Scalar:
                return jnp.mean(self._errors(params, layout, noisy))

            updates, state = self._optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        return jax.jit(step)

    def _key(self, name: str) -> Rng:
        return named_key(jax.random.key(self.config.seed), name)


def swapped(base: Layout, position: int, choice: Choice) -> Layout:
    """The layout with another choice at one position."""
    return (*base[:position], choice, *base[position + 1 :])
