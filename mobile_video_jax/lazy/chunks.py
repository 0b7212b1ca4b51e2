"""What streams lose where a chunk has outputs of the chunk before: by module and step, and by a whole table."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Latents, Scalar
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.diffusion.carry import Carry
from mobile_video_jax.diffusion.guidance import EmptyCaption, Guidance, guided, null_text
from mobile_video_jax.diffusion.path import Velocity
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.replaced import Key, Module, velocity_with
from mobile_video_jax.dit.step_table import CHUNK, MODULES, of_whole_clips
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.stream import START, Conditions, State, next_state, sample_chunk
from mobile_video_jax.lazy.trajectories import Captions
from mobile_video_jax.models.denoiser import Denoiser

StepOutputs = Mapping[Key, jax.Array]  # of the chunk before, at one step
SCORED = (2, 3)  # chunks behind the first frame, of the plain stream, in which changes are measured
COMPARED = 5  # chunks behind the first frame in which a table's stream is compared with the plain one


@dataclasses.dataclass(frozen=True)
class PlainStream:
    """Streams of a network for held-out captions, each from noise of the same seed."""

    denoiser: Denoiser
    config: SampleConfig
    params: Any
    captions: Captions
    empty: EmptyCaption | None

    @property
    def conditions(self) -> Conditions:
        """Text states and mask, and those of no caption."""
        text, mask = self.captions["text"], self.captions["text_mask"]
        return text, mask, null_text(text, mask, self.empty)

    def changes(self, seed: int, grid: Float[Array, "n"]) -> Float[np.ndarray, "s l 2"]:
        """The mean squared change of a step's update where one module has its output of the chunk before.

        `grid` are the times of the steps; the update is the step's length times the velocity.
        """
        depth = len(self.denoiser.network.config.block_shapes)
        keeping = dataclasses.replace(self.config, reuse=(CHUNK * len(MODULES) * depth,) * self.config.steps)
        state, changes, progress = START, [], Progress("chunks:", 1 + SCORED[-1])
        for i, noise in enumerate(self._noise(seed, SCORED[-1])):
            if i in SCORED:
                changes.append(_changes(self.denoiser, self.config, self.params, state, noise, self.conditions))
            plain = State(state.network, {})  # nothing to reuse, so that all is computed
            latents, outputs = sample_chunk(self.denoiser, keeping, self.params, plain, noise, self.conditions)
            state = State(self._next(plain, latents), outputs)
            progress.report(i + 1, "chunks")
        lengths = np.diff(np.asarray(grid))[:, None, None]
        return np.asarray(np.mean(changes, axis=0) * lengths**2)

    def distance(self, seed: int, table: tuple[str, ...]) -> float:
        """Root mean square difference of a table's stream from the one that has nothing of the chunk before.

        It is over the chunks from the second on, the first that may reuse, and in units of the latents' own root mean
        square.
        """
        tables = (of_whole_clips(table), table)
        plain, other = (np.concatenate([*self._latents(seed, each)][2:], axis=1) for each in tables)
        return float(np.sqrt(np.mean((plain - other) ** 2) / np.mean(plain**2)))

    def _latents(self, seed: int, table: tuple[str, ...]) -> Iterator[Latents]:
        config, state = dataclasses.replace(self.config, reuse=table), START
        for noise in self._noise(seed, COMPARED):
            latents, outputs = sample_chunk(self.denoiser, config, self.params, state, noise, self.conditions)
            state = State(self._next(state, latents), outputs)
            yield latents

    def _next(self, state: State, latents: Latents) -> Any:
        return next_state(self.denoiser, self.config, self.params, state, latents, self.conditions)

    def _noise(self, seed: int, chunks: int) -> Iterator[Latents]:
        """Noise of the first frame and of so many chunks."""
        _, *shape = self.denoiser.latent_shape
        for i in range(1 + chunks):
            frames = self.denoiser.config.model.stream_chunk if i else 1
            key = jax.random.fold_in(jax.random.key(seed), i)
            yield jax.random.normal(key, (len(self.captions["text"]), frames, *shape))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _changes(
    denoiser: Denoiser, config: SampleConfig, params: Any, state: State, noise: Latents, conditions: Conditions
) -> Float[Array, "steps l 2"]:
    """The mean squared change of each step's velocity, at the states of the plain sampler."""
    text, mask, negative = conditions
    depth, guidance = (
        len(denoiser.network.config.block_shapes),
        Guidance(config.guidance, rescale=config.guidance_rescale),
    )

    def without(number: Int[Array, ""], outputs: StepOutputs) -> Velocity:
        """The velocity with the output of the chunk before of module `number` alone."""

        def replace(module: Module) -> jax.Array:
            own = len(MODULES) * module.block + MODULES.index(module.name)
            return jnp.where(number == own, outputs[module.key], module.compute(module.z))

        network = functools.partial(velocity_with, denoiser.network, params, replace, stream=state.network)
        return guided(network, text, mask, guidance, negative)

    def probe(x_t: Latents, t: Scalar, velocity: Velocity, outputs: StepOutputs) -> Latents:
        times = jnp.full(x_t.shape[:1], t)
        plain = velocity(x_t, times)

        def change(number: Int[Array, ""]) -> Scalar:
            return jnp.mean((without(number, outputs)(x_t, times) - plain) ** 2)

        step, changes = carry.value
        row = jax.lax.map(change, jnp.arange(len(MODULES) * depth))
        carry.value = step + 1, changes.at[step].set(row.reshape(depth, len(MODULES)))
        return x_t

    carry = Carry((jnp.zeros((), jnp.int32), jnp.zeros((config.steps, depth, len(MODULES)))))
    velocity = guided(
        functools.partial(denoiser.velocity_behind, (params, state.network)), text, mask, guidance, negative
    )
    grid = {name: getattr(config, name) for name in ("steps", "shift", "terminal", "schedule", "times", "solver")}
    sample(velocity, noise, hook=probe, aux=state.outputs, scan=carry.scan, **grid)
    changes: jax.Array = carry.value[1]
    return changes
