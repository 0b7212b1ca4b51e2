"""The few-step teacher of K-DMD: a teacher with an adapter switched on, which an earlier distillation made."""

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.models.adapter import read_base
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import DistillTraining


def check_knowledge(config: DistillTraining) -> None:
    """Raises UserError for settings that K-DMD is not trained with."""
    for name in ("critic_lora", "few_step_lora"):
        if not getattr(config, name).rank:
            raise UserError(f"objective.method=kdmd trains adapters of the teacher: set --config.{name}.rank=64")
    if config.reuse:
        raise UserError("a student whose steps leave modules out has no features to compare: use another method")


def few_step_lora(config: DistillTraining, teacher: Run) -> LoraConfig:
    """The sizes of the adapter in the run `few_step`.

    Raises UserError where none is named, where the run holds none or was distilled for other steps than the student's,
    or where it adds to another run than the teacher.
    """
    if not config.few_step:
        raise UserError(
            "objective.method=kdmd learns from a few-step teacher: distil one with configs/distill.py:SIZE_few_step "
            f"--config.init_from={teacher.name}, and name its run with --config.few_step=RUN"
        )
    if config.objective.method != "kdmd":
        raise UserError(f"objective.method={config.objective.method} has no few-step teacher: leave out few_step")
    run = Run.open(config.few_step)
    lora = from_mapping(LoraConfig, run.config.get("lora", {}))
    if not lora.rank:
        raise UserError(f"{run} holds no adapter: name a run of configs/distill.py:SIZE_few_step")
    name, step = read_base(run.path)
    base = Run.open(run.find(name), step=step)
    if (base.path.absolute(), step) != (teacher.path.absolute(), teacher.step):
        raise UserError(f"{run} adds to step {step} of {base}, not to {teacher.name}: set --config.teacher={base.name}")
    sampling = run.denoiser.sampling
    # An imported adapter's run says how its base is sampled.
    wanted = {"sampling_steps": sampling.steps, "solver": sampling.solver} if run.stage == config.stage else {}
    for key, value in wanted.items():
        if getattr(config, key) != value:
            raise UserError(f"{run} is sampled with {key}={value}: set --config.{key}={value}")
    return lora
