"""One training step, compiled over the mesh."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mobile_video_jax.core.rng import step_key
from mobile_video_jax.cost.tpu.compiler_flags import compiler_options
from mobile_video_jax.cost.tpu.topology import generation_of
from mobile_video_jax.nn.attention.kernels import splash_blocks
from mobile_video_jax.nn.gradient_sums import summed_in
from mobile_video_jax.parallel.mesh import batch_sharding, replicated
from mobile_video_jax.train.optimizer import norm_history
from mobile_video_jax.train.spikes import is_usable
from mobile_video_jax.train.stage import Batch, Loss, Metrics, Params, Stage
from mobile_video_jax.train.state import TrainState, trainable

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(stage: Stage, optimizer: optax.GradientTransformation, mesh: Mesh, shardings: TrainState) -> Step:
    """The compiled (state, batch) -> (state, metrics); the state's memory is reused.

    A step that cannot be taken (see is_usable) changes nothing but the step's number; the metric "skipped" is then 1.
    """
    config = stage.config.optimizer

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = step_key(stage.config.seed, state.step)
        with summed_in(config.reduce_dtype), splash_blocks(*stage.config.splash_blocks):
            grads, metrics = step_gradients(stage, state, batch, rng)
        trained = trainable(stage, state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = state.params | optax.apply_updates(trained, updates)
        # The average warms up with the step count, so that a short run is not dominated by its first weights.
        decay = jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        decay = jnp.where(config.averages(state.step), decay, 1.0)
        ema_target = stage.ema_params(params)
        ema = optax.incremental_update(ema_target, state.ema, 1.0 - decay)
        ema |= {part: ema_target[part] for part in stage.frozen & ema_target.keys()}  # not even rounding moves them
        norm = optax.tree.norm(grads)
        usable = is_usable(metrics["loss"], norm, norm_history(config, state.opt_state), config.spike_sigmas)
        after = jax.tree.map(
            lambda new, old: jnp.where(usable, new, old),
            (params, ema, opt_state),
            (state.params, state.ema, state.opt_state),
        )
        metrics |= {"grad_norm": norm, "param_norm": optax.tree.norm(trained), "skipped": 1.0 - usable}
        return TrainState(state.step + 1, *after), metrics

    generation = generation_of(mesh.devices.flat[0].device_kind)
    return jax.jit(
        step,
        compiler_options=compiler_options(stage.config.xla_flags, generation),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def step_gradients(stage: Stage, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[Params, Metrics]:
    """Gradients and metrics of the step's own loss; nothing of the others is computed."""
    accumulate = stage.config.optimizer.accumulate
    inputs = {"params": state.params, "batch": batch, "rng": rng, "accumulate": accumulate}
    of_each = [functools.partial(gradients, stage, loss, **inputs) for loss in stage.losses]
    if len(of_each) == 1:
        return of_each[0]()
    names = {name for one in of_each for name in jax.eval_shape(one)[1]}

    def completed(one: Callable[[], tuple[Params, Metrics]]) -> tuple[Params, Metrics]:
        grads, metrics = one()
        return grads, dict.fromkeys(sorted(names), jnp.full((), jnp.nan)) | metrics

    result: tuple[Params, Metrics]
    result = jax.lax.switch(stage.loss_index(state.step), [functools.partial(completed, one) for one in of_each])
    return result


def gradients(
    stage: Stage, loss_of: Loss, params: Params, batch: Batch, rng: jax.Array, accumulate: int
) -> tuple[Params, Metrics]:
    """Gradients of the trained parts, and metrics, averaged over `accumulate` parts of the batch in turn."""

    def loss(trained: Params, part: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return loss_of(params | trained, part, key)

    def one(part: Batch, key: jax.Array) -> tuple[Params, Metrics]:
        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(trainable(stage, params), part, key)
        return grads, {"loss": value, **metrics}

    if accumulate == 1:
        return one(batch, rng)
    # Strided parts keep every device busy: each part takes some rows of every device's share.
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)
    summed = jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, shape.dtype),
        jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts), rng),
    )

    def body(total: tuple[Params, Metrics], item: tuple[Batch, jax.Array]) -> tuple[tuple[Params, Metrics], None]:
        return jax.tree.map(jnp.add, total, one(*item)), None

    total, _ = jax.lax.scan(body, summed, (parts, jax.random.split(rng, accumulate)))
    mean: tuple[Params, Metrics] = jax.tree.map(lambda x: x / accumulate, total)
    return mean
