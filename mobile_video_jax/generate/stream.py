"""Long clips, chunk by chunk: frames are there while later ones are generated, in memory that length does not change.

Each chunk is sampled from noise behind the finished ones, of which the network carries a state of constant size
(nn/stream.py). Then the network sees the finished chunk at time 0, which renews the state. With a reuse table that goes
across chunks, every second chunk also leaves the outputs of modules to the next one.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Clips, Latents, TextMask, TextStates
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.guidance import ConditionalVelocity, Guidance, guided, null_text
from mobile_video_jax.diffusion.hook import Scan
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.stepwise import ChunkOutputs
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.generate.sampling import reusing
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.parallel.mesh import batch_sharding
from mobile_video_jax.vae.pixels import to_bytes

Conditions = tuple[TextStates, TextMask, tuple[TextStates, TextMask] | None]


class State(NamedTuple):
    """What a stream carries to its next chunk."""

    network: Any  # its variables, {} before the first chunk
    outputs: ChunkOutputs  # of the chunk before, where its table reuses them and it computed them


START = State({}, {})


@dataclasses.dataclass(frozen=True, eq=False)
class ClipStream:
    """Generates clips of any length with a generator whose network is causal.

    Raises UserError for a network or a VAE that sees whole clips, and for settings that a stream does not know.
    """

    generator: Generator
    config: SampleConfig

    def __post_init__(self) -> None:
        if not self.chunk_frames:
            raise UserError(
                f"{self.generator.run} sees whole clips and cannot stream: train a run with --config.model.causal=True"
            )
        if not self.generator.vae.decodes_in_chunks:
            raise UserError("this decoder looks ahead and cannot stream: name another one with --vae")
        if (self.config.guidance_low, self.config.guidance_high) != (0.0, 1.0):
            raise UserError("a stream needs guidance at all times: leave out guidance_low and guidance_high")
        if self.config.path_drop:
            raise UserError("path_drop is for whole clips, not for streams: leave it out")

    @property
    def chunk_frames(self) -> int:
        """Latent frames of every chunk but the first."""
        return self.generator.denoiser.config.model.stream_chunk

    def chunks(self, seconds: float) -> int:
        """Chunks behind the first frame of the shortest clip of whole chunks that lasts so many seconds."""
        frames = round(seconds * self.generator.frame_rate)
        chunk = self.chunk_frames * self.generator.denoiser.strides.time
        return -(-max(frames - 1, 0) // chunk)

    def frames(self, requests: Sequence[Request], chunks: int) -> Iterator[Clips]:
        """uint8 frames [b t h w 3] of the requests' clips: the first frame, then those of each chunk."""
        generator = self.generator
        coder = generator.vae.coder(self.config.tile, self.config.overlap)
        latents = (np.asarray(generator.vae.stats.denormalize(x)) for x in self.latents(requests, chunks))
        for decoded in coder.decode(latents):
            yield np.asarray(to_bytes(jnp.asarray(decoded)))[: len(requests)]

    def latents(self, requests: Sequence[Request], chunks: int) -> Iterator[Latents]:
        """Normalised latents [b f lh lw c] of the first frame, then of each chunk."""
        generator, denoiser = self.generator, self.generator.denoiser
        group = generator.filled(requests)
        config = self.config.with_times(**generator.times)
        text, mask, negative, image = jax.device_put(
            generator.conditions(group, config), batch_sharding(generator.mesh)
        )
        conditions: Conditions = (text, mask, negative)
        state = START
        for i, noise in enumerate(itertools.islice(self._noise(group), 1 + chunks)):
            latents, outputs = sample_chunk(denoiser, config, generator.params, state, noise, conditions)
            if i == 0 and image is not None:
                first, starts_from_image = image
                latents = jnp.where(starts_from_image[:, None, None, None, None], first, latents)
            state = State(next_state(denoiser, config, generator.params, state, latents, conditions), outputs)
            yield latents

    def state_bytes(self, chunks: int) -> int:
        """Bytes of the state of one clip after so many chunks behind the first frame, from shapes alone."""
        config = self.config.with_times(**self.generator.times)
        state = state_after(self.generator.denoiser, config, self.generator.params, chunks)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))

    def _noise(self, requests: Sequence[Request]) -> Iterator[Latents]:
        """Noise of the first frame, then of each chunk, of each request's seed."""
        denoiser = self.generator.denoiser
        _, *shape = denoiser.latent_shape_of(self.generator.clip)
        keys = jnp.stack([jax.random.key(request.seed) for request in requests])
        for i in itertools.count():
            frames = self.chunk_frames if i else 1
            noise = _chunk_noise(keys, i, (frames, *shape))
            yield jax.device_put(noise, batch_sharding(self.generator.mesh))


@functools.partial(jax.jit, static_argnums=2)
def _chunk_noise(keys: jax.Array, chunk: Int[Array, ""] | int, shape: tuple[int, ...]) -> Latents:
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, chunk), shape))(keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def sample_chunk(
    denoiser: Denoiser, config: SampleConfig, params: Any, state: State, noise: Latents, conditions: Conditions
) -> tuple[Latents, ChunkOutputs]:
    """Normalised latents of the next chunk, from noise of their shape, and its outputs that a later one may reuse.

    A reuse table says what each step computes. A chunk has outputs of the one before where the state holds some, and
    then leaves none: what it reuses was computed by the chunk before, and is never older.
    """
    text, mask, negative = conditions
    velocity: ConditionalVelocity = functools.partial(denoiser.velocity_behind, (params, state.network))
    scan: Scan = jax.lax.scan
    carry = None
    if config.reuse:
        before = state.outputs if state.network else None  # the first frame is no chunk of the others' shape
        velocity, carry = reusing(
            denoiser.network, config, params, (noise, text, mask), chunk=before, stream=state.network
        )
        scan = carry.scan
    grid = {name: getattr(config, name) for name in ("steps", "shift", "terminal", "schedule", "times")}
    velocity_at = guided(velocity, text, mask, _guidance(config), negative)
    latents = sample(velocity_at, noise, solver=config.solver, scan=scan, **grid)
    return latents, {} if carry is None or state.outputs else carry.value.chunk


@functools.partial(jax.jit, static_argnums=(0, 1))
def next_state(
    denoiser: Denoiser, config: SampleConfig, params: Any, state: State, latents: Latents, conditions: Conditions
) -> Any:
    """The network's state behind a finished chunk: what it carries on from it at time 0, with and without caption."""
    text, mask, negative = conditions
    if config.guidance != 1.0:
        null_states, null_mask = negative or null_text(text, mask)
        latents = jnp.concatenate([latents, latents])
        text, mask = jnp.concatenate([text, null_states]), jnp.concatenate([mask, null_mask])
    return denoiser.next_state((params, state.network), latents, jnp.zeros(len(latents)), text, mask)


def state_after(denoiser: Denoiser, config: SampleConfig, params: Any, chunks: int) -> State:
    """The shapes of the state of one clip after so many chunks behind the first frame."""
    latents, *_, text, mask = denoiser.zero_inputs()
    sampled, advanced = (functools.partial(function, denoiser, config) for function in (sample_chunk, next_state))
    conditions, state = (text, mask, None), START
    for frames in [1, *[denoiser.config.model.stream_chunk] * chunks]:
        chunk = jax.ShapeDtypeStruct((1, frames, *latents.shape[2:]), latents.dtype)
        _, outputs = jax.eval_shape(sampled, params, state, chunk, conditions)
        state = State(jax.eval_shape(advanced, params, state, chunk, conditions), outputs)
    return state


def _guidance(config: SampleConfig) -> Guidance:
    return Guidance(config.guidance, rescale=config.guidance_rescale)
