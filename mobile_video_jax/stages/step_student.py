"""A few-step student whose steps leave modules out, as a function of its inputs alone: the time tells the step."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.dit.step_table import COMPUTED, OUT, StepTable, check_step_table, step_masks
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.network_config import as_transformer


def is_trainable(table: StepTable) -> bool:
    """True for a table that leaves modules out and reuses nothing, so that no step needs the one before."""
    return set("".join(table)) <= {COMPUTED, OUT}


@dataclasses.dataclass(frozen=True)
class StepStudent:
    """(parameters, x_t, t, text states, text mask, latent mask) -> velocity, as Denoiser.velocity.

    Modules are masked, which has gradients and saves no work. Raises UserError for a table of another number of steps
    than the student has, of another depth, or one that reuses outputs.
    """

    denoiser: Denoiser
    table: StepTable

    def __post_init__(self) -> None:
        steps = self.denoiser.sampling.steps
        check_step_table(self.table, len(self._shapes))
        if len(self.table) != steps:
            raise UserError(
                f"the reuse table is of {len(self.table)} steps, the student has {steps}: "
                f"set --config.sampling_steps={len(self.table)}"
            )
        if not is_trainable(self.table):
            raise UserError(
                "a student is trained with a table that leaves modules out, not with one that reuses outputs"
            )

    @property
    def _shapes(self) -> tuple[BlockShape, ...]:
        return as_transformer(self.denoiser.config.model).block_shapes

    def __call__(
        self,
        params: Any,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        mask: LatentMask | None = None,
    ) -> Latents:
        grid = time_grid(len(self.table), **self.denoiser.sampled_times(math.prod(x_t.shape[1:4])))[:-1]
        clip_times = jnp.max(t.reshape(len(t), -1), axis=1)  # of a conditioning frame it is 0
        step = jnp.argmin(jnp.abs(grid - clip_times[:, None]), axis=1)
        steps = step_masks(self.table, self._shapes)
        masks = jax.tree.map(lambda kind: jnp.moveaxis(jnp.asarray(kind)[step], 0, 1), steps)
        velocity: Latents = self.denoiser.velocity(params, x_t, t, text, text_mask, mask, masks)
        return velocity
