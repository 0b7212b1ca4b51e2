"""Quantisation of a trained transformer: palettes of 4.3 bits a weight, and its small tensors tuned to them.

python -m launch.train --config=configs/quantised.py:tiny --workdir=runs/quantised --config.init_from=runs/distilled \
    --config.data=data/latents

`init_from` is a run of any stage that leaves a transformer; sizes, times and sampling come from there. Afterwards
`export.run --weights=mixed` finds the palettes. Variants: tiny (two CPU cores), mobile and server (trained as those of
configs/dit.py, for a hundredth of the steps).
"""

import dataclasses

import ml_collections

from configs import dit
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import DitTraining, QuantiseTraining
from mobile_video_jax.train.config import OptimizerConfig

SHARE = 100  # the teacher's steps for one of quantisation
STEPS = {"tiny": 200}


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant not in ("tiny", "mobile", "server"):
        raise UserError(f"variant '{variant}' is unknown: use one of tiny, mobile, server")
    base = from_mapping(DitTraining, dit.get_config(variant).to_dict())
    shared = {field.name: getattr(base, field.name) for field in dataclasses.fields(DitTraining)}
    steps = STEPS.get(variant) or base.steps // SHARE
    # Norms' scales are among what is tuned, and must not decay.
    optimizer = OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=0.0, ema_decay=0.99)
    changes = {"stage": "quantise", "steps": steps, "checkpoint_every": steps // 2, "optimizer": optimizer}
    return to_config_dict(QuantiseTraining(**{**shared, **changes}, teacher_model=base.model))
