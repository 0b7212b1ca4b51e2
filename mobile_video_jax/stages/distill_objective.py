"""The objective of a step distillation, of its config and both networks."""

import dataclasses
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.knowledge import KnowledgeObjective
from mobile_video_jax.distill.objective import Objective
from mobile_video_jax.distill.projectors import Projectors
from mobile_video_jax.distill.self_forcing import Stream, StreamObjective
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.step_student import StepStudent
from mobile_video_jax.stages.teacher_adapters import check_knowledge


def check_objective(config: DistillTraining) -> None:
    """Raises UserError for settings that the method, or a causal student, is not distilled with."""
    method = config.objective.method
    if method == "consistency" and config.solver != "renoise":
        raise UserError("a consistent x0 is sampled by noising it afresh: set --config.solver=renoise")
    if config.model.stream_chunk:
        if not method.startswith("dmd"):
            raise UserError("a causal student learns by matching its own clips: use a variant SIZE_self_forcing")
        if config.reuse or config.optimizer.generator_alone or config.objective.flow:
            names = "reuse, optimizer.generator_alone and objective.flow"
            raise UserError(f"a causal student is distilled without {names}: leave them out")
    elif method == "kdmd":
        check_knowledge(config)


def make_objective(config: DistillTraining, student: Denoiser, teacher: Denoiser) -> Objective:
    """The objective, of clips or of a causal student's streams."""
    # The kernels of bfloat16 have no forward-mode derivative, which needs the precision anyway.
    dtype = "float32" if config.objective.method == "consistency" else config.model.dtype
    trained = Denoiser(
        dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype)), student.sampling
    )
    parts: dict[str, Any] = {
        "student": StepStudent(trained, config.reuse) if config.reuse else trained.velocity,
        "teacher": teacher.velocity,
        "discriminator": teacher.family.discriminator(config.teacher_model, config),
        "config": config.objective,
        "solver": config.solver,
    }
    if chunk := config.model.stream_chunk:
        return StreamObjective(**parts, stream=Stream(student.velocity_behind, student.next_state, chunk))
    if config.objective.method != "kdmd":
        return Objective(**parts)
    return KnowledgeObjective(
        **parts,
        student_maps=trained.velocity_and_maps,
        teacher_maps=teacher.velocity_and_maps,
        projectors=Projectors(teacher.map_shapes[-1].shape[-1]),
    )
