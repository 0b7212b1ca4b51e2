"""Parts of a distillation that are adapters of its teacher: a student, K-DMD's critic, its few-step teacher."""

import numpy as np

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import listed_times, time_grid
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.dit.lora import switched_on
from mobile_video_jax.models.adapter import read_base, restore_adapter
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import ROUNDING
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.train.stage import Params


def adapters_of(config: DistillTraining) -> dict[str, LoraConfig]:
    """The parts of the parameters that are adapters."""
    adapters = {"generator": config.lora} if config.lora.rank else {}
    if config.objective.method == "kdmd":
        adapters |= {"few_step": config.few_step_lora, "critic": config.critic_lora}
    return adapters


def with_adapters(config: DistillTraining, params: Params) -> Params:
    """The parameters, in which these parts are whole networks of the teacher's arrays and their own factors."""
    on = {part: switched_on(params["teacher"], params[part], lora.scale) for part, lora in adapters_of(config).items()}
    return {**params, **on}


def check_base_is_teacher(config: DistillTraining, source: Run, teacher: Run) -> None:
    """Raises UserError where a student that is an adapter adds to another run than it learns from."""
    if config.lora.rank and (source.path.absolute(), source.step) != (teacher.path.absolute(), teacher.step):
        raise UserError(f"an adapter is distilled from the run that it adds to: set --config.teacher={source.name}")


def check_knowledge(config: DistillTraining) -> None:
    """Raises UserError for settings that K-DMD is not trained with."""
    for name in ("critic_lora", "few_step_lora"):
        if not getattr(config, name).rank:
            raise UserError(f"objective.method=kdmd trains adapters of the teacher: set --config.{name}.rank=64")
    if config.reuse:
        raise UserError("a student whose steps leave modules out has no features to compare: use another method")


def few_step_lora(config: DistillTraining, teacher: Run) -> LoraConfig:
    """The sizes of the adapter in the run `few_step`; those of the config, where the method has no few-step teacher.

    Raises UserError where none is named, where the run holds none, is guided or has other steps than the student, or
    where it adds to another run than the teacher.
    """
    if config.objective.method != "kdmd":
        if config.few_step:
            raise UserError(f"objective.method={config.objective.method} has no few-step teacher: leave out few_step")
        return config.few_step_lora
    if not config.few_step:
        raise UserError(
            "objective.method=kdmd learns from a few-step teacher: distil one with configs/distill.py:SIZE_few_step "
            f"--config.init_from={teacher.name}, and name its run with --config.few_step=RUN"
        )
    run = Run.open(config.few_step)
    lora = from_mapping(LoraConfig, run.config.get("lora", {}))
    if not lora.rank:
        raise UserError(f"{run} holds no adapter: name a run of configs/distill.py:SIZE_few_step")
    name, step = read_base(run.path)
    base = Run.open(run.find(name), step=step)
    if (base.path.absolute(), step) != (teacher.path.absolute(), teacher.step):
        raise UserError(f"{run} adds to step {step} of {base}, not to {teacher.name}: set --config.teacher={base.name}")
    sampling = run.denoiser.sampling
    if sampling.guidance != 1:
        raise UserError(
            f"{run} is sampled in {sampling.steps} steps with guidance {sampling.guidance:g}, which is no few-step "
            "teacher: distil one with configs/distill.py:SIZE_few_step, or import a published one with --steps"
        )
    for key, value in {"sampling_steps": sampling.steps, "solver": sampling.solver}.items():
        if getattr(config, key) != value:
            raise UserError(f"{run} is sampled with {key}={value}: set --config.{key}={value}")
    return lora


def check_few_step_times(config: DistillTraining, student: Denoiser) -> None:
    """Raises UserError where the few-step teacher is sampled at other times than the student, on whose it answers."""
    if not config.few_step:
        return
    run = Run.open(config.few_step)
    theirs, own = _times(run.denoiser, student.tokens), _times(student, student.tokens)
    if theirs.shape != own.shape or np.abs(theirs - own).max() > ROUNDING:
        texts = [", ".join(f"{t:.4g}" for t in times) for times in (theirs, own)]
        raise UserError(
            f"{run} takes its steps at the times {texts[0]}, the student at {texts[1]}: "
            "set --config.time_shift, time_terminal and time_schedule so that they are the same"
        )


def _times(denoiser: Denoiser, tokens: int) -> np.ndarray:
    """The times at which the steps of a clip of so many tokens start."""
    sampling = denoiser.sampling
    if sampling.times:
        return np.asarray(listed_times(sampling.times))[:-1]
    return np.asarray(time_grid(sampling.steps, **denoiser.sampled_times(tokens)))[:-1]


def few_step_adapter(config: DistillTraining, teacher: Params) -> Params:
    """The factors in the run `few_step`, on the devices of the teacher's parameters."""
    run = Run.open(config.few_step)
    return restore_adapter(run.path, config.few_step_lora, teacher, run.step)
