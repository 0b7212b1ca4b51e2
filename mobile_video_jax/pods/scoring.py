"""Compilation of pruning's scoring program ahead of time, for TPUs that are not there."""

import functools
import math
import time
from typing import Any

import jax
import numpy as np

from mobile_video_jax.core.progress import phase
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.cost.tpu.topology import Topology
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated
from mobile_video_jax.pods.compile import compile_for
from mobile_video_jax.prune.calibration import calibration
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.plan import make_plan, program_flops, scoring_flops
from mobile_video_jax.prune.sensitivity import lower_losses

ADVICE = "use more --fsdp, a smaller --config.batch_clips or fewer --config.rows"


def compile_scoring(config: PruneConfig, denoiser: Denoiser, topology: Topology, fsdp: int = 1) -> dict[str, Any]:
    """Compiles the program that scores `rows` masked models on a batch; the report is that of compile_step.

    `programs` are as many of them as all scoring has FLOPs: first-order scores are counted, not compiled. Raises
    UserError for a budget out of reach and a batch that does not divide the mesh.
    """
    mesh = make_mesh(MeshConfig(data=-1, fsdp=fsdp), topology.devices())
    check_batch(config.batch_clips, mesh)
    plan = make_plan(config, denoiser)
    flops = program_flops(config, plan)
    started = time.monotonic()
    noisy = functools.partial(calibration, times=config.times, shift=1.0)
    clips = jax.eval_shape(noisy, denoiser.input_shapes(config.batch_clips), jax.random.key(0))
    masks = Masks(*(np.stack([mask] * config.rows) for mask in plan.space.units.all()))
    with phase("tracing the scoring program"):
        lowered = lower_losses(
            denoiser.network,
            config.kd,
            denoiser.abstract_params(mesh),
            jax.tree.map(lambda x: abstract(x, batch_sharding(mesh)), clips),
            jax.tree.map(lambda x: abstract(x, replicated(mesh)), masks),
        )
    _, compiled = compile_for(topology, lowered, int(flops))
    return {
        "topology": topology.name,
        "slices": topology.slices,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "batch_size": config.batch_clips,
        "limit_bytes": topology.chip.hbm_bytes,
        "parameters": count_parameters(denoiser.parameter_shapes),
        "flops_per_step": int(flops),
        "programs": math.ceil(scoring_flops(config, plan) / flops),
        **compiled,
        "compile_seconds": time.monotonic() - started,
    }
