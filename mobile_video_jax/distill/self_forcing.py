"""Self-forcing (arXiv 2506.08009): a causal student learns on clips that it makes as it will be sampled, by chunks.

Each chunk is generated behind the student's own chunks. All chunks leave the few steps at one random step, which alone
has a gradient; the state behind a chunk is that of the finished chunk at time 0, a constant.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import predict_x0
from mobile_video_jax.distill.adversarial import Metrics
from mobile_video_jax.distill.captioned import CaptionedLatents, Network
from mobile_video_jax.distill.few_step import STEPS, Grid, roll_out
from mobile_video_jax.distill.objective import Objective, Trained


@dataclasses.dataclass(frozen=True)
class Stream:
    """A causal network that continues a clip behind a state, {} at its start."""

    velocity: Network  # ((parameters, state), x_t, t, text, text mask, latent mask) -> velocity of the next chunk
    next_state: Callable[..., Any]  # the same arguments -> state behind that chunk
    chunk: int  # latent frames of every chunk but the first, which has one

    def generate(
        self,
        params: Any,
        clips: CaptionedLatents,
        noise: Latents,
        grid: Grid,
        rng: Rng,
        *,
        last_step: Int[Array, ""] | int,
        solver: str,
    ) -> Latents:
        """Clips for the captions, whose chunks are the x0 predictions of step number `last_step` of `grid`."""
        state: Any = {}
        constant, count = jax.lax.stop_gradient(params), len(noise)
        finished: list[Latents] = []
        for i, frames in enumerate(self._chunks(noise.shape[1])):
            chunk = clips.of_frames(frames)
            before = chunk.velocity(self.velocity, (constant, state))
            index = jnp.full(count, last_step)
            key = jax.random.fold_in(rng, i)
            x_t = jax.lax.stop_gradient(roll_out(before, noise[:, frames], grid, index, STEPS[solver], key))
            t = grid[index]
            x0 = predict_x0(x_t, chunk.velocity(self.velocity, (params, state))(x_t, t), t)
            inputs = chunk.inputs(jax.lax.stop_gradient(x0), jnp.zeros(count))
            state = self.next_state((constant, state), *inputs)
            finished.append(x0)
        return jnp.concatenate(finished, axis=1)

    def _chunks(self, frames: int) -> Iterator[slice]:
        yield slice(0, 1)
        for start in range(1, frames, self.chunk):
            yield slice(start, start + self.chunk)


@dataclasses.dataclass(frozen=True)
class StreamObjective(Objective):
    """Distribution matching of clips that a causal student streams; the teacher and the critics see whole clips."""

    stream: Stream | None = None

    def __call__(
        self,
        params: Any,
        clips: CaptionedLatents,
        grid: Grid,
        rng: Rng,
        *,
        shift: float = 1.0,
        trained: Trained = "all",
    ) -> tuple[Scalar, Metrics]:
        """The loss of what is `trained`: the student, its critics or both."""
        params = params | {"teacher": jax.lax.stop_gradient(params["teacher"])}
        generator = jax.lax.stop_gradient(params["generator"]) if trained == "opponent" else params["generator"]
        last_step = jax.random.randint(named_key(rng, "exit"), (), 0, len(grid) - 1)
        noise = jax.random.normal(named_key(rng, "noise"), clips.latents.shape)
        x0 = self._generated(generator, clips, noise, grid, named_key(rng, "chunks"), last_step)
        games, loss, metrics = self._games(params, clips, x0, grid, named_key(rng, "judge"), shift)
        terms = games if trained == "all" else {}
        loss += sum((getattr(self.config, name) * value for name, value in terms.items()), jnp.zeros(()))
        return loss, terms | metrics

    def samples(self, generator: Any, clips: CaptionedLatents, noise: Latents, grid: Grid) -> Latents:
        """The student's clips, in all steps."""
        return self._generated(generator, clips, noise, grid, jax.random.key(0), len(grid) - 2)

    def kd_error(self, generator: Any, teacher: Any, clips: CaptionedLatents, grid: Grid, rng: Rng) -> Scalar:
        """0: the velocity of a chunk behind others is none that the teacher has."""
        return jnp.zeros(())

    def _generated(
        self, generator: Any, clips: CaptionedLatents, noise: Latents, grid: Grid, rng: Rng, last_step: Any
    ) -> Latents:
        assert self.stream
        return self.stream.generate(generator, clips, noise, grid, rng, last_step=last_step, solver=self.solver)
