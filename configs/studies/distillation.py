"""Studies of step distillation."""

import dataclasses
from collections.abc import Callable
from typing import Any

from configs import demo, prune
from configs.studies.pruning import pruning_study, pruning_study_gpu
from configs.studies.trainings import distill_training, dit_training, recover_training
from mobile_video_jax.core.config import Config, from_mapping
from mobile_video_jax.data.shapes.world import KNOWN
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.studies.shrinking_config import DistillationStudy

# In the demo's world every way gets 99 % of the samples right: circles and light grounds make it harder.
HARDER = dataclasses.replace(demo.WORLD, shapes=KNOWN["shapes"], backgrounds=("dark", "light"))


def _distillation() -> DistillationStudy:
    """Models that are not distilled draw with the guidance that the student learns, in the paper's 40 steps."""
    pruning, distill = pruning_study(), dataclasses.replace(distill_training("tiny"), steps=200)
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {
        "world": HARDER,
        "dit": dit_training("tiny", steps=1200),
        "sampling": SampleConfig(steps=40, guidance=distill.objective.guidance),
        "samples": 360,
        "teacher_right": 0.0,
        "seeds": (0, 1, 2),
        "validation_clips": 128,
    }
    pruned = from_mapping(PruneConfig, prune.get_config("tiny").to_dict())
    return DistillationStudy(**shared, prune=pruned, recover=recover_training("tiny"), distill=distill)


def distillation_study_gpu() -> DistillationStudy:
    pruning = pruning_study_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {"teacher_right": 0.0, "seeds": (0, 1, 2)}
    same = {key: getattr(pruning.recover, key) for key in ("clip", "compression", "batch_size", "text_tokens")}
    distill = dataclasses.replace(distill_training("mobile"), **same, steps=10_000)
    recover = recover_training("mobile", **same, steps=10_000)
    return DistillationStudy(**shared, prune=pruning.prune, recover=recover, distill=distill)


HEADS: dict[str, Any] = {"arms": ("kd", "conv", "dit", "mismatched", "taps"), "seeds": (0,), "repeats": 8}


FEW: dict[str, Any] = {
    "arms": ("kd", "dit", "renoise", "renoise-dit", "dmd2", "scm", "kdmd"),
    "seeds": (0,),
    "repeats": 4,
}


def _distillation_of(arms: dict[str, Any], *, steps: int, **changes: Any) -> DistillationStudy:
    """Arms of one strong teacher's student, after as long a recovery as lets it follow."""
    study = _distillation()
    return dataclasses.replace(
        study,
        dit=dataclasses.replace(study.dit, steps=4000, checkpoint_every=500),
        teacher_right=0.9,
        recover=dataclasses.replace(study.recover, steps=1000),
        distill=dataclasses.replace(study.distill, steps=steps, eval_every=steps, checkpoint_every=steps),
        samples=1000,
        test_clips=240,
        **(arms | changes),
    )


def _quickly(arms: dict[str, Any], *, steps: int, **changes: Any) -> DistillationStudy:
    """The same in the demo's world: its teacher is soon right, so that heads tell more there than students do."""
    study = _distillation_of(arms, steps=steps)
    return dataclasses.replace(
        study,
        world=demo.WORLD,
        dit=dataclasses.replace(study.dit, steps=2000, checkpoint_every=250),
        recover=dataclasses.replace(study.recover, steps=300),
        samples=480,
        test_clips=480,
        evaluated_steps=(4,),
        **changes,
    )


def _few_steps_quickly() -> DistillationStudy:
    """Ways to few steps in the harder world, where a student can still lose; the teacher takes its steps to the end."""
    study = _distillation_of(FEW, steps=90, points=3, repeats=2)
    return dataclasses.replace(
        study,
        dit=dataclasses.replace(study.dit, steps=2000),
        teacher_right=0.0,
        recover=dataclasses.replace(study.recover, steps=400),
        samples=480,
        test_clips=480,
        evaluated_steps=(4,),
    )


STUDIES: dict[str, Callable[[], Config]] = {
    "distillation": _distillation,
    "distillation_quick": lambda: dataclasses.replace(_distillation(), arms=("kd", "conv", "dit"), seeds=(0,)),
    "distillation_gpu": distillation_study_gpu,
    "distillation_heads": lambda: _distillation_of(HEADS, steps=300, warm_steps=300, head_steps=200),
    "distillation_heads_quick": lambda: _quickly(HEADS, steps=60, warm_steps=60, head_steps=100, repeats=3),
    "distillation_heads_gpu": lambda: dataclasses.replace(
        distillation_study_gpu(), **HEADS | {"repeats": 3}, warm_steps=5_000, head_steps=2_000
    ),
    "distillation_steps": lambda: _distillation_of(FEW, steps=400, points=4),
    "distillation_steps_quick": _few_steps_quickly,
    "distillation_steps_gpu": lambda: dataclasses.replace(distillation_study_gpu(), **FEW | {"repeats": 3}),
}
