"""Training on a teacher's stored outputs: a student of any size, the teacher not in memory.

python -m launch.teach --model=runs/large --data=data/latents --out=data/taught
python -m launch.train --config=configs/taught.py:s2dit --workdir=runs/student --config.data=data/taught

Variants are those of configs/dit.py, with their sizes, clips and steps. --config.init_from=RUN starts from a network,
as one that was pruned or converted.
"""

import dataclasses

import ml_collections

from configs import dit
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.stages.config import DitTraining, TaughtTraining


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    base = from_mapping(DitTraining, dit.get_config(variant).to_dict())
    same = {field.name: getattr(base, field.name) for field in dataclasses.fields(DitTraining)}
    return to_config_dict(
        TaughtTraining(**same | {"stage": "taught", "image_probability": 0.0, "caption_dropout": 0.0})
    )
