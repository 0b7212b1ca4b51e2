"""Stages whose network, the student, learns from a frozen teacher."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.stages.config import ConvertTraining, DistillTraining, RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.latent_stage import at_data_rate
from mobile_video_jax.stages.lineage import read_pruned
from mobile_video_jax.train.stage import Params

# What student and teacher have in common, as the student's run says.
SHARED = ("compression", "text_encoder", "text_width", "text_tokens")
TIMES = ("time_shift", "shift_follows_tokens", "time_terminal")

StudentTraining = RecoverTraining | ConvertTraining | DistillTraining


class StudentStage(DitStage):
    """Parameters are the student's under the name `student`, the teacher's under "teacher", and a stage's own."""

    config: Any
    student: ClassVar[str]

    def __init__(self, config: StudentTraining, sampling: Sampling = STANDARD):
        teacher = at_data_rate(dataclasses.replace(config, model=config.teacher_model)).model
        super().__init__(dataclasses.replace(config, teacher_model=teacher), sampling)
        self.teacher = Denoiser(dataclasses.replace(self.config, model=teacher))

    @classmethod
    def build(cls, config: Any) -> "StudentStage":
        """The stage of a config, with the sizes, latents and captions of the runs in `init_from` and `teacher`.

        Without `init_from` a fresh student of the config's sizes learns from `teacher`, on its latents.
        Without a teacher it is the one that the student was pruned from or learnt from, else `default_teacher`. Raises
        UserError where there is none, and where it has other latents or captions.
        """
        if not config.init_from:
            return cls(taught_by(config)) if config.teacher else cls(config)
        source = Run.open(config.init_from)
        _ = source.denoiser  # a run without one network is told before its teacher is looked for
        pruned = read_pruned(source)
        named = source.config.get("teacher") or pruned.get("teacher")
        name = config.teacher or (source.find(named) if named else cls.default_teacher(config))
        if not name:
            raise UserError(f"{source} learnt from no other run: name one to learn from with --config.teacher=RUN")
        teacher = Run.open(name)
        teacher.check_teaches()
        check_shared(SHARED, source, teacher)
        stage = cls(dataclasses.replace(config, teacher=name, **cls.completions(config, source, teacher, pruned)))
        stage.source, stage.teacher_run = source, teacher
        return stage

    @classmethod
    def default_teacher(cls, config: Any) -> str:
        """The run that teaches where none is named and the student learnt from none; empty: there is none."""
        return ""

    @classmethod
    def completions(cls, config: Any, source: Run, teacher: Run, pruned: dict[str, Any]) -> dict[str, Any]:
        """The fields of the config that the runs decide."""
        student = source.denoiser.config
        shared = {key: getattr(student, key) for key in ("model", "time_schedule", *SHARED)}
        return shared | {"teacher_model": teacher.denoiser.config.model}

    @functools.cached_property
    def teacher_run(self) -> Run | None:
        """The teacher's run."""
        return Run.open(self.config.teacher) if self.config.teacher else None

    @property
    def pretrained_runs(self) -> tuple[Run, ...]:
        return tuple(run for run in (self.source, self.teacher_run) if run)

    def init(self, rng: Rng) -> Params:
        teacher = self.teacher.init(named_key(rng, "teacher"))
        return {self.student: super().init(rng), "teacher": in_its_dtype(teacher, self.config.teacher_model.dtype)}

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def ema_params(self, params: Params) -> Params:
        """The student's."""
        return params[self.student]

    def pretrained(self, target: Params) -> Params:
        """The student of `init_from` and its teacher, as far as there are such runs."""
        runs = {self.student: self.source, "teacher": self.teacher_run}
        return {part: run.params(target[part]) for part, run in runs.items() if run and part in target}

    @property
    def sampled_like(self) -> Denoiser:
        """The teacher."""
        return self.teacher_run.denoiser if self.teacher_run else self.denoiser

    def description(self) -> dict[str, Any]:
        others = [part for part in self.shapes if part != self.student]
        counts = {f"{part}_parameters": count_parameters(self.shapes[part]) for part in others}
        return {**super().description(), **counts}


def taught_by(config: Any) -> Any:
    """The config of a fresh student on the latents, captions and times of the run `teacher`."""
    run = Run.open(config.teacher)
    run.check_teaches()
    teacher = run.denoiser.config
    shared = {key: getattr(teacher, key) for key in ("time_schedule", *SHARED, *TIMES)}
    return dataclasses.replace(config, teacher_model=teacher.model, **shared)


def in_its_dtype(params: Params, dtype: str) -> Params:
    """Frozen matrices in the dtype that they are multiplied in: no step casts them, and bf16 takes half the memory."""
    return jax.tree.map(lambda x: x.astype(dtype) if math.prod(x.shape) > max(x.shape) else x, params)


def check_shared(keys: Sequence[str], student: Run, teacher: Run) -> None:
    """Raises UserError where two runs differ in some of these keys of their denoisers."""
    for key in keys:
        teacher_value, student_value = (getattr(run.denoiser.config, key) for run in (teacher, student))
        if teacher_value != student_value:
            raise UserError(
                f"teacher {teacher} has {key}={teacher_value}, student {student} {student_value}: "
                "use runs on the same latents, captions and times"
            )
