"""A run that holds an adapter (dit/lora.py): which run it adds to, and both read back as one transformer."""

import functools
from pathlib import Path

import flax.linen as nn
import jax

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.dit.lora import init_adapter, merged
from mobile_video_jax.parallel.mesh import replicated
from mobile_video_jax.train.checkpoint import abstract, newest_step, restore_model
from mobile_video_jax.train.run import read_run
from mobile_video_jax.train.stage import Params

# What a run of adapter checkpoints holds beside them: the run it adds to, and that run's step.
BASE = "base.json"


def check_adapter(rank: int, stage: str, init_from: str) -> None:
    """Raises UserError where a config asks for an adapter that cannot be trained."""
    if rank and stage != "dit":
        raise UserError(f"stage '{stage}' trains no adapters, stage 'dit' does: set lora.rank=0")
    if rank and not init_from:
        raise UserError("an adapter is trained for another run: name that with --config.init_from=RUN")


def record_base(run: Path, base: Path) -> None:
    """Writes down which run an adapter's run adds to. Raises UserError where it has been trained since."""
    if newest_step(run) is not None:
        _check_step(run, base)
    write_json(run / BASE, {"run": str(base.absolute()), "step": newest_step(base)})


def restore_transformer(run: Path, target: Params) -> Params:
    """The averaged weights of a run's newest checkpoint, placed as `target` says; an adapter is merged into its base.

    Raises UserError where the run or its base is missing or damaged, and where the base has been trained since.
    """
    lora = from_mapping(LoraConfig, read_run(run)["config"].get("lora", {}))
    if not lora.rank:
        return restore_model(run, target)
    base = storage_path(read_json(run / BASE)["run"])
    if not base.is_dir():
        raise UserError(f"{run} adds to {base}, which does not exist: bring it back, or name its place in {run / BASE}")
    _check_step(run, base)
    whole = replicated(jax.tree.leaves(target)[0].sharding.mesh)
    shapes = nn.unbox(jax.eval_shape(functools.partial(init_adapter, lora), jax.random.key(0), target))
    adapter = restore_model(run, {"adapter": jax.tree.map(lambda x: abstract(x, whole), shapes)})["adapter"]
    merge = jax.jit(
        functools.partial(merged, scale=lora.scale),
        out_shardings=jax.tree.map(lambda x: x.sharding, target),
        donate_argnums=0,
    )
    return merge(restore_transformer(base, target), adapter)


def _check_step(run: Path, base: Path) -> None:
    step, now = read_json(run / BASE)["step"], newest_step(base)
    if now != step:
        raise UserError(f"{run} adds to step {step} of {base}, whose newest is {now}: use a copy of the run as it was")
