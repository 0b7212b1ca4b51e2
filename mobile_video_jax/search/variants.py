"""Distilled variants: blocks of every choice, each taught by the trained block that it may take the place of."""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Scalar
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.core.rng import named_key, step_key
from mobile_video_jax.dit.features import Features
from mobile_video_jax.dit.stacking import unstack_blocks
from mobile_video_jax.dit.teacher_forcing import block_distances
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.parallel.mesh import put_batch, replicated
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.space import Choice, Space
from mobile_video_jax.search.supernet import FULL_CHOICE, Params, layout_denoiser, split_params
from mobile_video_jax.stages.convert import transferred
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.checkpoint import newest_step, restore_model, save_model

FOLDER = "variants"  # of a search's folder: a model for each choice that was distilled


def supernet_params(
    config: SearchConfig, space: Space, stage: DitStage, params: Params, mesh: Mesh, out: Path
) -> Params:
    """The parameters of a supernet: `rest`, and `variants` of all choices of a space and of the trained blocks.

    Each choice is distilled by itself and saved, so that a stopped search resumes with those that are done.
    """
    rest, blocks = split_params(params)
    variants = {str(FULL_CHOICE): blocks}
    for choice in space.choices:
        if choice != FULL_CHOICE:
            variants[str(choice)] = _variant(config, choice, stage, params, mesh, out / FOLDER)
    return {"rest": rest, "variants": variants}


def pupil(denoiser: Denoiser, choice: Choice) -> Denoiser:
    """The denoiser all of whose blocks are of one choice, each a stage of its own."""
    depth = len(denoiser.config.transformer.block_shapes)
    alike = layout_denoiser(denoiser, (choice,) * depth)
    model = dataclasses.replace(alike.config.transformer, new_stages=tuple(range(1, depth)))
    return Denoiser(dataclasses.replace(alike.config, model=model))


def distance(pupil: Denoiser, frozen: Params, features: Features, inputs: tuple[Any, ...], variant: Params) -> Scalar:
    """The mean distance of all blocks of a choice from the trained blocks' `features`; `frozen` is the rest."""
    blocks = unstack_blocks({"blocks": {"block": variant}})
    return jnp.mean(block_distances(pupil.network, frozen | blocks, features, *inputs))


def _variant(config: SearchConfig, choice: Choice, stage: DitStage, params: Params, mesh: Mesh, folder: Path) -> Params:
    """The stacked parameters of one choice, distilled or read."""
    learner = pupil(stage.denoiser, choice)
    fresh = nn.unbox(learner.init(named_key(jax.random.key(config.seed), str(choice))))
    frozen, start = split_params(transferred(fresh, params))
    start = jax.device_put(start, replicated(mesh))
    path = folder / str(choice).replace("/", "_")
    if newest_step(path) is not None:
        return restore_model(path, jax.tree.map(_abstract, start))
    variant = _distilled(config, stage, learner, params, frozen, start, mesh) if config.distill_steps else start
    save_model(path, config.distill_steps, variant)
    return variant


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _distilled(
    config: SearchConfig,
    stage: DitStage,
    learner: Denoiser,
    params: Params,
    frozen: Params,
    variant: Params,
    mesh: Mesh,
) -> Params:
    """The variant after `distill_steps` steps; all positions learn at once, each from its own block."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.distill_rate))
    state = jax.device_put(optimizer.init(variant), replicated(mesh))
    kind, resolution = learner.config.transformer.layout[0]
    progress = Progress(f"distil {kind}/{resolution}:", config.distill_steps)

    @jax.jit
    def step(
        variant: Params, state: Any, params: Params, frozen: Params, batch: Any, number: int | jax.Array
    ) -> tuple[Params, Any, Scalar]:
        noisy = stage.training_batch(batch, step_key(config.seed, number))
        _, features = stage.denoiser.velocity_and_features(params, *noisy.inputs)
        lesson = functools.partial(distance, learner, frozen, features, noisy.inputs)
        value, gradient = jax.value_and_grad(lesson)(variant)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variant, updates), state, value

    every = max(config.distill_steps // 4, 1)
    for i, batch in enumerate(itertools.islice(stage.train_batches(mesh), config.distill_steps)):
        batch.pop("record", None)
        variant, state, value = step(variant, state, params, frozen, put_batch(batch, mesh), i)
        if (i + 1) % every == 0:
            progress.report(i + 1, f"distance {float(value):.4f}")
    return variant
