"""A discriminator's quality on held-out clips: how well it tells real from generated ones, and reads captions."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import interpolate, predict_x0
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.captioned import CaptionedLatents
from mobile_video_jax.metrics.auc import roc_auc
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.parallel.rules import parameter_shardings
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.train.checkpoint import checkpoint_path, restore_item
from mobile_video_jax.train.checkpoints import STATE
from mobile_video_jax.train.loop import train

TIMES = (0.1, 0.3, 0.5, 0.7)  # of re-noised clips


def head_alone(config: DistillTraining, steps: int) -> DistillTraining:
    """The config that trains the discriminator for so many steps, and never the student."""
    optimizer = dataclasses.replace(config.optimizer, generator_every=steps + 1, generator_alone=0)
    return dataclasses.replace(config, steps=steps, eval_every=0, checkpoint_every=steps, optimizer=optimizer)


def measure_head(config: DistillTraining, run: Path) -> dict[str, float]:
    """Trains a discriminator against its frozen student in `run`, and measures it on the held-out clips.

    `auc@T` is of real against generated clips, noised to time T; `caption@T` the share of real clips that score higher
    with their own caption than with another clip's.
    """
    stage = DistillStage(DistillStage.build(config).config)
    train(stage, run)
    mesh = make_mesh(config.mesh, jax.local_devices()[:1])
    target = jax.tree.map(abstract, stage.shapes, parameter_shardings(stage.boxed_shapes, mesh))
    stored = restore_item(checkpoint_path(run) / STATE, {"params": {"discriminator": target["discriminator"]}})
    params = {**stage.pretrained({part: target[part] for part in ("generator", "teacher")}), **stored["params"]}
    logits = jax.jit(lambda batch, rng: _logits(stage, params, batch, rng))
    return _quality(logits, stage.eval_batches(mesh))


def _quality(logits: Any, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    rows = [
        jax.device_get(logits({name: x for name, x in batch.items() if name != "record"}, jax.random.key(i)))
        for i, batch in enumerate(batches)
    ]
    quality: dict[str, float] = {}
    for i, t in enumerate(TIMES):
        real, fake, other = (np.concatenate([row[kind][i] for row in rows]) for kind in ("real", "fake", "other"))
        quality |= {f"auc@{t}": roc_auc(real, fake), f"caption@{t}": float(np.mean(real > other))}
    return quality


def _logits(stage: DistillStage, params: Any, batch: dict[str, Any], rng: Rng) -> dict[str, Float[Array, "t b"]]:
    """Mean logits of real clips, of the student's, and of real clips with others' captions, at each of TIMES."""
    objective, clips = stage.objective, CaptionedLatents(batch["latents"], batch["text"], batch["text_mask"])
    grid = time_grid(stage.config.sampling_steps, **stage.denoiser.sampled_times(stage.denoiser.tokens))
    states = objective.states(params["generator"], clips, grid, named_key(rng, "states"))
    velocity = clips.velocity(objective.student, params["generator"])(states.x_t, states.t)
    noise = jax.random.normal(named_key(rng, "noise"), clips.latents.shape)

    def mean_logits(of: CaptionedLatents, x: Array, t: float) -> Float[Array, "b"]:
        times = jnp.full(x.shape[0], t)
        features = objective.discriminator.features(params["teacher"], *of.inputs(interpolate(x, noise, times), times))
        return jnp.mean(objective.discriminator.logits(params["discriminator"], features, x.shape[1:4]), axis=1)

    fake = predict_x0(states.x_t, velocity, states.t)
    sets = {
        "real": (clips, clips.latents),
        "fake": (clips, fake),
        "other": (clips.with_other_captions(), clips.latents),
    }
    return {kind: jnp.stack([mean_logits(of, x, t) for t in TIMES]) for kind, (of, x) in sets.items()}
