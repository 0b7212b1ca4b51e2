"""Elastic training: one transformer whose widths are networks of their own (SnapGen++, arXiv 2601.08303).

python -m launch.train --config=configs/elastic.py:tiny --workdir=runs/elastic --config.data=data/latents
python -m launch.slice --model=runs/elastic --width=0.5 --out=runs/half

Each step trains the whole network and one of `widths`, sampled uniformly. Variants: tiny (two CPU cores), small, and
snapgenpp, three stages; all trained as the transformers of configs/dit.py, whose phases they have too: small_images.
"""

import dataclasses

import ml_collections

from configs import dit
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import DitTraining, ElasticTraining

WIDTHS = {"tiny": (0.5, 0.75), "small": (0.375, 0.5), "snapgenpp": (0.375, 0.5)}


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    size = variant.partition("_")[0]
    if size not in WIDTHS:
        raise UserError(f"variant '{variant}' is unknown: use one of {', '.join(WIDTHS)}, or a phase of one")
    base = from_mapping(DitTraining, dit.get_config(variant).to_dict())
    shared = {field.name: getattr(base, field.name) for field in dataclasses.fields(DitTraining)}
    return to_config_dict(ElasticTraining(**shared | {"stage": "elastic"}, widths=WIDTHS[size]))
