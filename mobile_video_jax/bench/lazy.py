"""Speed of sampling by a reuse table beside the plain sampler: whether counted FLOPs and seconds fall together."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mobile_video_jax.bench.dit import GUIDANCE, Steps, random_batch
from mobile_video_jax.bench.timing import Row, median_seconds, random_arrays, row
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.dit.step_table import BOTH, COMPUTED, MODULES
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.lazy.costs import module_costs
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.stages.dit import DitStage

SAMPLING_STEPS = 4


def lazy_sample(steps: Steps) -> Row:
    """A guided clip in SAMPLING_STEPS steps, every second of which reuses the outputs of the one before.

    The peer is the plain sampler; `flops_ratio` is what counting expects of `ratio`.
    """
    stage = DitStage(steps.config)
    denoiser, batch = stage.denoiser, random_batch(stage)
    letters = len(MODULES) * len(as_transformer(denoiser.config.model).block_shapes)
    table = (COMPUTED * letters, BOTH * letters) * (SAMPLING_STEPS // 2)
    times = denoiser.sampled_times(denoiser.tokens)
    plain = SampleConfig(steps=SAMPLING_STEPS, guidance=GUIDANCE).with_times(**times)
    params: Any = jax.tree.map(lambda x: x.astype(steps.config.model.dtype), random_arrays(denoiser.parameter_shapes))
    inputs = [jnp.asarray(batch[name]) for name in ("latents", "text", "text_mask")]
    runs = [
        partial(jax.jit(partial(sample_latents, denoiser.network, config)), params, *inputs)
        for config in (dataclasses.replace(plain, reuse=table), plain)
    ]
    ours, peer = median_seconds(runs, steps.repeats)
    return row(
        "lazy_sample",
        (ours, peer),
        peer="all modules computed",
        dtype=steps.config.model.dtype,
        shape=[steps.config.batch_size, *denoiser.latent_shape],
        parameters=count_parameters(denoiser.parameter_shapes),
        flops_ratio=1 / module_costs(denoiser, "flops").share(table, guided=True),
    )
