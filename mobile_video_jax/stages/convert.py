"""Conversion: blocks of other kinds of attention and of lower resolution learn what a trained transformer's blocks do.

Distillation block by block comes before any training of the whole, which loses motion first. It needs no second model
and few steps. Stage `recover`, or `dit` where the student is causal, then trains the blocks together.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from mobile_video_jax.core.arrays import FrameTimes, Latents, Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.diffusion.timesteps import sample_times
from mobile_video_jax.dit.config import LAYOUT_KEYS
from mobile_video_jax.dit.stacking import unstack_blocks
from mobile_video_jax.dit.teacher_forcing import block_distances
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import ConvertTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.student import TIMES, StudentStage
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params

CHANGED = ("block_", "down_", "up_")  # modules that learn; all others stay the teacher's


class ConvertStage(StudentStage):
    """The mean L1 distance of the student's blocks from the teacher's, each on the teacher's input."""

    config: ConvertTraining
    student = "student"

    @classmethod
    def build(cls, config: ConvertTraining) -> "StudentStage":
        """The stage of a config: the teacher is the run in `init_from`. Raises UserError where no layout is named."""
        if not config.transformer.layout:
            raise UserError(
                "say what to convert to: list a kind of attention and a resolution for each block in model.layout"
            )
        return super().build(dataclasses.replace(config, teacher=config.teacher or config.init_from))

    @classmethod
    def completions(cls, config: ConvertTraining, source: Run, teacher: Run, pruned: dict[str, Any]) -> dict[str, Any]:
        """The student has the teacher's sizes and times, and the config's layout."""
        shared = super().completions(config, source, teacher, pruned)
        shared |= {key: getattr(source.denoiser.config, key) for key in TIMES}
        layout = {key: getattr(config.transformer, key) for key in LAYOUT_KEYS}
        trained = as_transformer(shared["model"])
        return shared | {"model": dataclasses.replace(trained, **layout, scan=False, remat="none")}

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        noisy = self.training_batch(batch, rng)
        _, features = jax.lax.stop_gradient(self.teacher.velocity_and_features(params["teacher"], *noisy.inputs))
        student = {
            name: value if name.startswith(CHANGED) else jax.lax.stop_gradient(value)
            for name, value in params["student"].items()
        }
        distances = block_distances(self.denoiser.network, student, features, *noisy.inputs)
        return jnp.mean(distances), {f"block_{i}": distance for i, distance in enumerate(distances)}

    def training_times(self, x0: Latents, rng: Rng) -> FrameTimes:
        """Times of clips, as the teacher was trained at, also where the student is causal."""
        return sample_times(rng, x0.shape[0], shift=self.time_shift(x0))

    def pretrained(self, target: Params) -> Params:
        """The teacher, and a student that starts from all of the teacher's parameters that it has as well."""
        params = super().pretrained({"teacher": target["teacher"]})
        if "student" not in target or not self.teacher_run:
            return params
        mesh = jax.tree.leaves(target["student"])[0].sharding.mesh
        initialise = jax.jit(
            lambda rng: nn.unbox(self.denoiser.init(rng)),
            out_shardings=jax.tree.map(lambda x: x.sharding, target["student"]),
        )
        fresh = initialise(named_key(jax.random.key(self.config.seed), "student"))
        return params | {"student": transferred(fresh, self.teacher_run.params(self.teacher.abstract_params(mesh)))}

    def cost(self, devices: int | None = None) -> Cost:
        """The student's forward and backward pass and the teacher's forward pass."""
        plain = DitStage(self.config).cost(devices)
        batch = self.abstract_batch(devices)
        inputs = (batch["latents"], jnp.zeros(batch["latents"].shape[0]), batch["text"], batch["text_mask"])
        flops = count_flops(self.teacher.velocity, self.shapes["teacher"], *inputs)
        return Cost(plain.tokens, plain.flops + sum(flops.values()))


def transferred(student: Params, teacher: Params) -> Params:
    """The student's parameters, with the teacher's wherever both have one of the same name and shape."""
    own, other = flatten_dict(student), flatten_dict(unstack_blocks(teacher))
    shared = {path: x for path, x in other.items() if path in own and own[path].shape == x.shape}
    params: Params = unflatten_dict(own | shared)
    return params
