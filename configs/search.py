"""How the layout of a network is searched.

python -m launch.search --model=runs/dit --budget_ms=200 --out=runs/searched --config=configs/search.py:s2dit

Variants: tiny for two CPU cores; temporal, layers over time of the tiny U-Net, and snapgenv, of the large one
(--method=evolution); s2dit, the kinds of S2DiT (arXiv 2601.12719) for a large transformer, whose variants are distilled
for longer.
"""

import ml_collections

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.evolution import EvolutionConfig

# Layers over time of the tiny U-Net: Adam's rate of shared layers, and of a candidate's own steps.
TEMPORAL = SearchConfig(
    clip="9x32x32",
    distill_steps=400,
    distill_rate=2e-3,
    tune_rate=2e-3,
    times=2,
    batch_clips=32,
    evolution=EvolutionConfig(population=12, generations=4, fidelities=(0, 20, 60)),
)
VARIANTS = {
    "tiny": SearchConfig(
        distill_steps=200,
        tune_rate=3e-4,
        clips=64,
        batch_clips=16,
        evolution=EvolutionConfig(population=12, generations=4, fidelities=(0, 20, 60)),
    ),
    "temporal": TEMPORAL,
    # The steps that SnapGen-V (arXiv 2412.10494) is reported to train each candidate for, here once for all.
    "snapgenv": SearchConfig(
        clip="121x512x512", distill_steps=20_000, evolution=EvolutionConfig(fidelities=(0, 100, 300, 1000))
    ),
    "s2dit": SearchConfig(
        kinds=("full", "lcha", "ssa", "chunked"),
        distill_steps=2000,
        distill_rate=3e-4,
        tune_rate=2e-5,
        clips=128,
        evolution=EvolutionConfig(fidelities=(0, 100, 300, 1000)),
    ),
}


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant not in VARIANTS:
        raise UserError(f"variant '{variant}' is unknown: use one of {', '.join(VARIANTS)}")
    return to_config_dict(VARIANTS[variant])
