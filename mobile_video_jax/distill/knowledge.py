"""K-DMD (SnapGen++, arXiv 2601.08303): distribution matching beside the answers of a few-step teacher."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mobile_video_jax.distill.adversarial import Metrics
from mobile_video_jax.distill.captioned import CaptionedLatents, MappedNetwork
from mobile_video_jax.distill.distances import mean_square
from mobile_video_jax.distill.few_step import FewStepStates
from mobile_video_jax.distill.objective import Objective, Prediction
from mobile_video_jax.distill.projectors import Projectors, projected_errors
from mobile_video_jax.nn.module import apply


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnowledgeObjective(Objective):
    """L = L_matching + |v_F - v_S|^2 + |f_F - phi(f_S)|^2 / |f_F|^2, F a few-step teacher on the student's noisy clips.

    f are the features after the last block. F needs no guidance. Parameters also hold "few_step", those of F, and
    "projectors", those of phi, which are trained with the generator.
    """

    student_maps: MappedNetwork
    teacher_maps: MappedNetwork
    projectors: Projectors

    def predicted(self, generator: Any, clips: CaptionedLatents, states: FewStepStates) -> Prediction:
        return Prediction(*clips.velocity_and_maps(self.student_maps, generator, states.x_t, states.t))

    def _distillation(
        self, params: Any, clips: CaptionedLatents, states: FewStepStates, predicted: Prediction, steps: int
    ) -> Metrics:
        few_step = jax.lax.stop_gradient(params["few_step"])
        velocity, maps = clips.velocity_and_maps(self.teacher_maps, few_step, states.x_t, states.t)
        projected = apply(self.projectors, params["projectors"], predicted.maps[-1:])
        return {
            "kd": jnp.mean(mean_square(predicted.velocity, velocity, clips.mask)),
            "features": jnp.mean(projected_errors(projected, maps[-1:], clips.mask)),
        }
