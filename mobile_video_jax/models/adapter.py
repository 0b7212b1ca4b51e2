"""A run that holds an adapter (dit/lora.py): the run that it adds to, and both merged into one network."""

import functools
from pathlib import Path

import flax.linen as nn
import jax

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.dit.lora import init_adapter, merged
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.mesh import replicated
from mobile_video_jax.train.checkpoint import newest_step, restore_model, steps
from mobile_video_jax.train.stage import Params

# The file of an adapter's run that names the run it adds to, and that run's step.
BASE = "base.json"
STAGES = ("dit", "distill", "reward_tuning")  # stages that train adapters


def check_adapter(rank: int, stage: str, init_from: str) -> None:
    """Raises UserError where a config asks for an adapter that cannot be trained.

    A distilled one is costed without a run, as its base is among the parameters whether or not one is read.
    """
    if rank and stage not in STAGES:
        raise UserError(f"stage '{stage}' trains no adapters, stage 'dit' does: set lora.rank=0")
    if rank and stage != "distill":
        check_named(init_from)


def check_named(init_from: str) -> None:
    """Raises UserError for an adapter of no run."""
    if not init_from:
        raise UserError("an adapter is trained for another run: name that with --config.init_from=RUN")


def record_base(run: Path, base: Path, step: int | None) -> None:
    """Writes BASE into an adapter's run. Raises UserError where the adapter was begun on another step of the base."""
    if newest_step(run) is not None and (begun := read_base(run)[1]) != step:
        raise UserError(f"{run} adds to step {begun} of {base}, not to {step}: set --config.init_from={base}@{begun}")
    write_json(run / BASE, {"run": str(base.absolute()), "step": step})


def read_base(run: Path) -> tuple[str, int]:
    """The run that an adapter's run adds to, as it was named, and that run's step."""
    record = read_json(run / BASE, "run", "step")
    return record["run"], record["step"]


def check_base(run: Path, base: Path, step: int) -> Path:
    """The base of an adapter's run. Raises UserError where it is gone or no longer holds the step."""
    if not base.is_dir():
        raise UserError(f"{run} adds to {base}, which does not exist: bring it back, or name its path in {run / BASE}")
    if step not in steps(base):
        raise UserError(
            f"{run} adds to step {step} of {base}, whose newest is {newest_step(base)}: use a copy of the run as it was"
        )
    return base


def restore_adapter(run: Path, config: LoraConfig, network: Params, step: int | None = None) -> Params:
    """The factors of a step, or of the newest, on every device of the mesh that the network is sharded over."""
    whole = replicated(jax.tree.leaves(network)[0].sharding.mesh)
    shapes = nn.unbox(jax.eval_shape(functools.partial(init_adapter, config), jax.random.key(0), network))
    target = {"adapter": jax.tree.map(lambda x: abstract(x, whole), shapes)}
    factors: Params = restore_model(run, target, step)["adapter"]
    return factors


def merge_adapter(base: Params, adapter: Params, config: LoraConfig) -> Params:
    """The base's parameters with the adapter's updates added, sharded as they are; their memory is reused."""
    merge = jax.jit(
        functools.partial(merged, scale=config.scale),
        out_shardings=jax.tree.map(lambda x: x.sharding, base),
        donate_argnums=0,
    )
    return merge(base, adapter)
