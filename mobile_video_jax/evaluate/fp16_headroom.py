"""Largest activations of a trained transformer, beside the largest number that a phone's fp16 holds."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.arrays import Latents, Scalar, TextMask, TextStates, Times
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.dit.block import DitBlock
from mobile_video_jax.dit.stacking import unstack_blocks
from mobile_video_jax.models.networks import build_network
from mobile_video_jax.models.run import Run
from mobile_video_jax.nn.attention.full import FullAttention, SelfAttention
from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.dense import Dense, FeedForward
from mobile_video_jax.nn.embeddings import apply_rope
from mobile_video_jax.nn.module import apply
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.held_out import WEIGHT

FP16_MAX = float(np.finfo(np.float16).max)
FP16_MIN = float(np.finfo(np.float16).smallest_subnormal)

# What an RMS norm takes, and so squares.
ATTENTIONS = ("self_attention", "cross_attention")
NORMALISED = {"patch_in", "residual", *(f"{attention}/{name}" for attention in ATTENTIONS for name in "qk")}


def largest_activations(
    run: Run | Path, data: str = "", batches: int = 0, progress: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """The largest absolute activations of a run's averaged weights, by kind, with the block that they are in.

    Held-out clips of `data` (the run's own if empty), `batches` of them (as many as the run's evaluations take if 0),
    pass the network one by one in float32, with their captions; each batch is spread over the times of a sampler.
    An entry holds the `value`, its `block` (None outside of blocks), the values `by_block`, `headroom` = 65,504 / value
    and, where a norm squares the values, `squares_headroom` = 65,504 / value^2. Raises UserError for a run or data set
    that is missing or does not fit, and for values that are not finite.
    """
    opened = Run.open(run)
    config = DitStage.of_run(opened).config
    # One device measures, whatever mesh the run was trained on.
    config = dataclasses.replace(
        config, data=data or config.data, eval_batches=batches or config.eval_batches, mesh=MeshConfig()
    )
    stage = DitStage(config)
    # TPUs and GPUs round the factors of float32 products by default.
    with jax.default_matmul_precision("highest"):
        clips, maxima = _over_clips(*_unrolled(opened, stage), stage, progress)
    if not np.isfinite(list(maxima.values())).all():
        raise UserError(
            f"{run} computes values that are not finite even in float32: train it again or name another run"
        )
    return {"data": config.data, "clips": clips, "fp16_max": FP16_MAX, "activations": _by_kind(maxima)}


def peaks(
    network: nn.Module, params: Any, x_t: Latents, t: Times, text: TextStates, text_mask: TextMask
) -> dict[str, Scalar]:
    """Largest absolute values of one forward pass, by path, of a transformer neither scanned nor rematerialised.

    Layers give their outputs (`ffn/up` is the FFN's hidden values before GELU). Beside them stand each block's
    `residual` stream, the modulated `input` of self-attention and FFN, and the attentions' `logits`, q k^T before they
    are divided by sqrt(d).
    """
    recorded: dict[str, list[jax.Array]] = collections.defaultdict(list)

    def observe(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__":
            _record(recorded, context.module, args, kwargs, out)
        return out

    with nn.intercept_methods(observe):
        apply(network, params, x_t, t, text, text_mask)
    return {path: jnp.stack([jnp.max(jnp.abs(x)) for x in values]).max() for path, values in recorded.items()}


def _record(recorded: dict[str, list[jax.Array]], module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
    path = "/".join(module.path)
    match module:
        case Dense() | RMSNorm():
            recorded[path].append(out)
        case DitBlock():
            recorded[f"{path}/residual"].append(out)
        case FeedForward():
            recorded[f"{path}/input"].append(args[0])
        case SelfAttention() if not isinstance(module, FullAttention):
            recorded[f"{path}/input"].append(args[0])
        case Attention():
            q, k = recorded[f"{path}/q_norm"][0], recorded[f"{path}/k_norm"][0]
            if rope := kwargs.get("rope"):
                q, k = apply_rope(q, rope), apply_rope(k, rope)
                recorded[f"{path}/input"].append(args[0])
            else:  # cross-attention is of the residual stream itself
                recorded[f"{module.path[0]}/residual"] += [args[0], args[0] + out]
            recorded[f"{path}/logits"].append(jnp.einsum("bnhd,bmhd->bhnm", q, k))


def _over_clips(
    network: nn.Module, params: Any, stage: DitStage, progress: Callable[[str], object]
) -> tuple[int, dict[str, float]]:
    """The count of held-out clips, and their largest peaks."""
    measure = jax.jit(functools.partial(peaks, network))
    maxima: dict[str, float] = collections.defaultdict(float)
    rng, clips = np.random.default_rng(stage.config.seed), 0
    for done, batch in enumerate(stage.eval_batches(make_mesh(stage.config.mesh)), 1):
        for inputs in _noisy_clips(stage, batch, rng):
            for path, value in jax.device_get(measure(params, *inputs)).items():
                maxima[path] = float(np.maximum(maxima[path], value))
        clips += int(batch[WEIGHT].sum())
        progress(f"activations: batch {done}/{stage.config.eval_batches}")
    return clips, maxima


def _unrolled(run: Run, stage: DitStage) -> tuple[nn.Module, Any]:
    """The run's network in float32 with a module a block, and its weights."""
    config = stage.config
    params = run.sharded_params(make_mesh(config.mesh, jax.local_devices()[:1]))
    network = build_network(dataclasses.replace(config.transformer, scan=False, remat="none", dtype="float32"))
    return network, unstack_blocks(params) if config.transformer.scan else params


def _noisy_clips(stage: DitStage, batch: Mapping[str, Any], rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """(x_t, t, text, text_mask) of every clip of a batch, at times spread from 1 to 0 and without its padding."""
    count, *grid = batch["latents"].shape[:4]
    times = time_grid(count - 1, shift=stage.denoiser.time_shift(int(np.prod(grid))))
    for i in range(count):
        x0 = batch["latents"][i : i + 1]
        if "latent_mask" in batch:
            x0 = x0[:, batch["latent_mask"][i].any(axis=(1, 2))]
        t = times[i : i + 1]
        noise = jnp.asarray(rng.standard_normal(x0.shape, np.float32))
        text = (jnp.asarray(batch[key][i : i + 1]) for key in ("text", "text_mask"))
        yield interpolate(jnp.asarray(x0), noise, t), t, *text


def _by_kind(maxima: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Entries by path without the block, the largest first."""
    by_kind: dict[str, dict[int | None, float]] = collections.defaultdict(dict)
    for path, value in maxima.items():
        block, _, rest = path.partition("/")
        number = int(block.removeprefix("block_")) if block.startswith("block_") else None
        by_kind[path if number is None else rest][number] = value
    entries = {kind: _entry(kind, values) for kind, values in by_kind.items()}
    return dict(sorted(entries.items(), key=lambda item: -item[1]["value"]))


def _entry(kind: str, values: Mapping[int | None, float]) -> dict[str, Any]:
    block, value = max(values.items(), key=lambda item: item[1])
    largest = max(value, FP16_MIN)  # an untrained layer gives 0
    entry: dict[str, Any] = {"value": value, "block": block, "headroom": FP16_MAX / largest}
    if block is not None:
        entry["by_block"] = [values[number] for number in range(len(values))]
    if kind in NORMALISED:
        entry["squares_headroom"] = FP16_MAX / largest**2
    return entry
