"""Optimizers by name."""

from collections.abc import Sequence
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from mobile_video_jax.dit.stacking import is_group
from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig
from mobile_video_jax.train.spikes import NormHistory, remember_norms

VAE = frozenset({"encoder", "decoder", "projectors"})  # trained parts of a VAE without a discriminator
GENERATOR = VAE | {"generator"}  # parts of the parameters that are the first player's


def learning_rate(config: OptimizerConfig, steps: int, peak: float) -> optax.Schedule:
    """Linear warm-up over the share `warmup` of all steps, then decay to zero at the last."""
    warmup = max(int(config.warmup * steps), 1)
    rest = max(steps - warmup, 1)
    decays = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "constant": optax.constant_schedule(peak),
    }
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decays[config.schedule]], [warmup])


def logged_rate(config: OptimizerConfig, steps: int, step: int) -> float:
    """The learning rate that step number `step`, from 1, is taken with; of two players the generator's."""
    done = step - 1
    if isinstance(config, PlayersOptimizerConfig):
        steps, done = config.generator_updates(steps), config.generator_updates(done)
    return float(learning_rate(config, steps, config.learning_rate)(done))


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Gradient clipping by global norm, then AdamW or Muon; of two players one each. Kernels alone decay.

    `steps` are those of the schedule; after them the rate stays as it is then. With `spike_sigmas` the norms of the
    last steps come first in its state.
    """
    if isinstance(config, PlayersOptimizerConfig):
        optimizer = _players_optimizer(config, steps)
    else:
        optimizer = _one_optimizer(config, steps)
    return optax.chain(remember_norms(), optimizer) if config.spike_sigmas else optimizer


def norm_history(config: OptimizerConfig, state: Any) -> NormHistory | None:
    """The norms in the optimizer's state; None where it keeps none."""
    history: NormHistory | None = state[0] if config.spike_sigmas else None
    return history


def _players_optimizer(config: PlayersOptimizerConfig, steps: int) -> optax.GradientTransformation:
    alone, masked = config.generator_alone, optax.transforms.conditionally_mask
    generator = _one_optimizer(config, config.generator_updates(steps))
    opponent = _one_optimizer(config.opponent, max(steps - alone, 1))
    # Between a player's updates its moments and its schedule stay as they are.
    if config.generator_every > 1:
        generator = masked(generator, config.updates_generator)
    if alone:
        opponent = masked(opponent, lambda step: step >= alone)
    players = {"generator": generator, "opponent": opponent}
    player = lambda parts: {part: "generator" if part in GENERATOR else "opponent" for part in parts}
    one, both = _one_optimizer(config, steps), optax.partition(players, player)

    def of(parts: Any) -> optax.GradientTransformation:
        """A VAE without an opponent keeps the state of one optimizer, which its checkpoints have always had."""
        return one if parts.keys() <= VAE else both

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        result: tuple[Any, Any] = of(updates).update(updates, state, params)
        return result

    return optax.GradientTransformation(lambda params: of(params).init(params), update)


def _one_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    rate = learning_rate(config, steps, config.learning_rate)
    if config.name == "adamw":
        update = optax.adamw(
            rate,
            config.beta1,
            config.beta2,
            weight_decay=config.weight_decay,
            mask=lambda tree: _map_kernels(_is, tree),
        )
    else:
        update = muon(
            rate,
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            weight_decay=config.weight_decay,
            adam_learning_rate=learning_rate(config, steps, config.adam_learning_rate),
            muon_weight_dimension_numbers=lambda tree: _map_kernels(_dimension_numbers, tree),
        )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)


def _map_kernels(function: Any, params: Any) -> Any:
    def of_leaf(path: Sequence[Any], leaf: Any) -> Any:
        return function([str(getattr(key, "key", key)) for key in path], leaf)

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def _is(names: list[str], leaf: Any) -> bool:
    return names[-1] == "kernel"


def _dimension_numbers(names: list[str], leaf: Any) -> MuonDimensionNumbers | None:
    """Dimension numbers of a kernel as Muon's matrix: all axes but the last are inputs; scanned layers are a batch."""
    if names[-1] != "kernel":
        return None
    first = 1 if any(map(is_group, names)) else 0
    return MuonDimensionNumbers(tuple(range(first, leaf.ndim - 1)), (leaf.ndim - 1,))
