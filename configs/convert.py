"""Conversion of a trained transformer to other kinds of attention, by distillation block by block.

python -m launch.train --config=configs/convert.py:tiny --workdir=runs/converted --config.init_from=runs/dit \
    --config.data=data/latents --config.model.causal=True --config.model.layout='(("lcha",1),("lcha",1),…)'

`model.layout` lists a kind of attention and a resolution for each block; sizes and teacher are those of `init_from`.
Afterwards configs/recover.py trains all blocks together. Variants: tiny (two CPU cores), small, server, ltx, wan and
ti2v (trained as the transformers of configs/dit.py, for a fiftieth of their steps), without a layout of their own.
"""

import dataclasses

import ml_collections

from configs import dit
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import ConvertTraining, DitTraining

SHARE = 50  # the teacher's steps for one of conversion
STEPS = {"tiny": 200}
VARIANTS = ("tiny", "small", "server", "ltx", "wan", "ti2v")


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant not in VARIANTS:
        raise UserError(f"variant '{variant}' is unknown: use one of {', '.join(VARIANTS)}")
    base = from_mapping(DitTraining, dit.get_config(variant).to_dict())
    shared = {field.name: getattr(base, field.name) for field in dataclasses.fields(DitTraining)}
    steps = STEPS.get(variant) or base.steps // SHARE
    # Most parameters have no gradient here, and must not decay.
    optimizer = dataclasses.replace(base.optimizer, weight_decay=0.0)
    changes = {"stage": "convert", "steps": steps, "checkpoint_every": steps // 2, "optimizer": optimizer}
    return to_config_dict(ConvertTraining(**{**shared, **changes}, teacher_model=base.model))
