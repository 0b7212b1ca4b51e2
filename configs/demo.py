"""The demo: a small world, a small VAE, a small transformer, one of half its size, and the same in four steps.

python -m launch.demo --out=demo

About twelve minutes on two CPU cores. The world is one large object of 3 shapes and 6 colours in 5 motions on a dark
ground.
"""

import dataclasses

import ml_collections

from configs import distill, dit, prune, recover, vae
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.demo.config import DemoConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.stages.config import DistillTraining, DitTraining, RecoverTraining, VaeTraining

# One large object on a dark ground.
WORLD = World(
    counts=(1,),
    shapes=("square", "triangle", "cross"),
    motions=("left", "right", "up", "down", "still"),
    backgrounds=("dark",),
    size=1.4,
)


# Fewer steps than in the studies of pruning and distillation: all of the demo is to take twelve minutes.
STEPS, RECOVERY_STEPS, DISTILLATION_STEPS = 680, 200, 60


def get_config() -> ml_collections.ConfigDict:
    """The demo's config."""
    transformer = from_mapping(DitTraining, dit.get_config("tiny").to_dict())
    recovery = from_mapping(RecoverTraining, recover.get_config("tiny").to_dict())
    distillation = from_mapping(DistillTraining, distill.get_config("tiny").to_dict())
    return to_config_dict(
        DemoConfig(
            world=WORLD,
            vae=from_mapping(VaeTraining, vae.get_config("tiny_t4_s8_c16").to_dict()),
            dit=dataclasses.replace(transformer, steps=STEPS, eval_every=STEPS // 4, checkpoint_every=STEPS // 2),
            prune=from_mapping(PruneConfig, prune.get_config("tiny").to_dict()),
            recover=dataclasses.replace(recovery, steps=RECOVERY_STEPS, checkpoint_every=RECOVERY_STEPS),
            distill=dataclasses.replace(
                distillation,
                steps=DISTILLATION_STEPS,
                eval_every=DISTILLATION_STEPS,
                checkpoint_every=DISTILLATION_STEPS,
            ),
            sampling=SampleConfig(steps=40, guidance=8.0),
            few=SampleConfig(steps=4, guidance=1.0),
        )
    )
