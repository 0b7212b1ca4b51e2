"""Held-out losses of layouts, clip by clip, with the supernet's parameters or after some steps of training."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.timesteps import stratified_times
from mobile_video_jax.parallel.distributed import to_hosts
from mobile_video_jax.parallel.mesh import put_batch
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.network import NetworkSearch, Params
from mobile_video_jax.search.space import Choice, Layout, as_text
from mobile_video_jax.search.steps import Steps
from mobile_video_jax.stages.noisy_batch import noisy_batch
from mobile_video_jax.train.held_out import WEIGHT

ClipLosses = Float64[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True)
class LayoutLosses:
    """The held-out flow-matching losses of layouts, all on the same clips, times and noise.

    The layout is data: two programs, of evaluation and of a training step, serve all.
    """

    config: SearchConfig
    steps: Steps
    params: Params  # that all layouts share
    memo: MutableMapping[str, Any] = dataclasses.field(default_factory=dict)  # losses by layout and steps
    progress: Callable[[], object] = lambda: None  # called before each evaluation that is not in the memo

    @property
    def network(self) -> NetworkSearch:
        """The network whose layouts these are."""
        return self.steps.network

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
        numbers, params = self.network.numbers(layout, self.params), self.params
        if steps:
            params = self.steps.after(params, itertools.repeat(numbers, steps), self.config.tune_rate)
        losses = [
            to_hosts(self._clip_losses(params, numbers, batch, jax.random.fold_in(self._key("held out"), i)))
            for i, (batch, _) in enumerate(self._held_out)
        ]
        weights = np.concatenate([weight for _, weight in self._held_out])
        return np.asarray(np.concatenate(losses)[weights > 0], np.float64)

    @functools.cached_property
    def _held_out(self) -> list[tuple[Any, np.ndarray]]:
        """The held-out batches on devices, each with the weights of its clips."""
        batches, stage, mesh = [], self.steps.stage, self.steps.mesh
        for batch in stage.eval_batches(mesh):
            batch.pop("record", None)
            batches.append((put_batch(batch, mesh), np.asarray(batch[WEIGHT])))
        if not batches or sum(weight.sum() for _, weight in batches) < 2:
            raise UserError(f"{stage.config.data} holds no two clips for validation: encode data with some")
        return batches

    @functools.cached_property
    def _clip_losses(self) -> Callable[[Params, Int[Array, "l"], Any, Rng], Float[Array, "b"]]:
        def losses(params: Params, layout: Int[Array, "l"], batch: Any, key: Rng) -> Float[Array, "b"]:
            x0, times = batch["latents"], self.config.times
            grid = stratified_times(times * len(x0), shift=self.steps.stage.time_shift(x0)).reshape(times, -1)

            def at(part: tuple[Float[Array, "b"], Rng]) -> Float[Array, "b"]:
                t, key = part
                noisy = noisy_batch(batch, t, batch["text"], batch["text_mask"], key)
                return noisy.errors(self.network.velocity(params, layout, *noisy.inputs))

            return jnp.mean(jax.lax.map(at, (grid, jax.random.split(key, times))), axis=0)

        return jax.jit(losses)

    def _key(self, name: str) -> Rng:
        return named_key(jax.random.key(self.config.seed), name)


def swapped(base: Layout, position: int, choice: Choice) -> Layout:
    """The layout with another choice at one position."""
    return (*base[:position], choice, *base[position + 1 :])
