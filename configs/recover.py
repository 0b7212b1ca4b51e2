"""Recovery of a pruned transformer by distillation.

python -m launch.train --config=configs/recover.py:mobile --workdir=runs/recovered --config.init_from=runs/pruned \
    --config.data=data/latents

`init_from` is what `launch.prune` made; sizes, teacher and block map come from there. Variants: tiny (two CPU cores),
mobile (the paper's shapes: a student of 0.9 B parameters, a teacher of 2.0 B), ltx, wan and ti2v (the transformers of
LTX-Video, of Wan 2.1 1.3B and of Wan 2.2 TI2V 5B, and what the paper's shares leave of them), unet (a fresh tiny U-Net
that learns from the transformer in --config.teacher, on its latents). Without `init_from` all but tiny and unet have
these shapes, which is what `launch.inspect` and `launch.compile` count before anything is trained.
"""

import dataclasses

import ml_collections

from configs import dit, unet
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.stages.config import DitTraining, RecoverTraining

# Student and teacher.
LARGE = {
    "mobile": ("mobile", "server"),
    "ltx": ("ltx_mobile", "ltx"),
    "wan": ("wan_mobile", "wan"),
    "ti2v": ("ti2v_mobile", "ti2v"),
}
# Recovery takes a tenth of the teacher's steps.
SHARE = 10


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant == "tiny":
        return to_config_dict(_like("tiny", "tiny", steps=300))
    if variant == "unet":
        return to_config_dict(_unet())
    if variant in LARGE:
        return to_config_dict(_like(*LARGE[variant]))
    raise UserError(f"variant '{variant}' is unknown: use one of tiny, unet, {', '.join(LARGE)}")


def _unet() -> RecoverTraining:
    """A fresh tiny U-Net that learns from a transformer, as SnapGen's network from a larger one."""
    base = from_mapping(DitTraining, unet.get_config("tiny").to_dict())
    shared = {field.name: getattr(base, field.name) for field in dataclasses.fields(DitTraining)} | {"stage": "recover"}
    return RecoverTraining(**shared, teacher_model=dit.MODELS["tiny"], balance="timestep")


def _like(student: str, teacher: str, steps: int = 0) -> RecoverTraining:
    """Trained as the teacher was, on its clips, for fewer steps."""
    base = from_mapping(DitTraining, dit.get_config(teacher).to_dict())
    shared = {field.name: getattr(base, field.name) for field in dataclasses.fields(DitTraining)}
    steps = steps or base.steps // SHARE
    changes = {"stage": "recover", "model": dit.MODELS[student], "steps": steps, "checkpoint_every": steps // 4}
    return RecoverTraining(**{**shared, **changes}, teacher_model=base.model, kd=KdWeights())
