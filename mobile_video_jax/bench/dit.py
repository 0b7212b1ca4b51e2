"""Speed of the transformer beside the same transformer in PyTorch: a training step and a sampling step."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.bench.timing import Row, Run, median_seconds, random_arrays, row, training_step
from mobile_video_jax.cost.flops import count_flops, count_parameters
from mobile_video_jax.diffusion.guidance import Guidance, guided, null_text
from mobile_video_jax.diffusion.samplers import euler_step
from mobile_video_jax.nn.module import apply
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.config import OptimizerConfig

GUIDANCE = 5.0
TIMES = (0.5, 0.45)  # of the sampling step


@runtime_checkable
class PeerDit(Protocol):
    """Another framework's steps of the same transformer, by the way to run it; each waits for its result."""

    name: str

    def train(self, batch: Mapping[str, np.ndarray], optimizer: OptimizerConfig) -> dict[str, Run]: ...

    def sample(
        self, batch: Mapping[str, np.ndarray], null: Mapping[str, np.ndarray], scale: float, times: tuple[float, float]
    ) -> dict[str, Run]: ...


@dataclasses.dataclass(frozen=True)
class Steps:
    """The measurement: model and batch, the side of the square matrices whose product is the ceiling, timed runs."""

    config: DitTraining
    ceiling_side: int
    repeats: int


def dit_train(steps: Steps, peer: PeerDit) -> Row:
    """A whole training step: noise, loss, backward pass, clipping by norm, AdamW and the moving average."""
    stage = DitStage(steps.config)
    batch = random_batch(stage)
    peers = peer.train(batch, steps.config.optimizer)
    return _row("dit_train", steps, training_step(stage, batch), peers, peer.name, stage.cost().flops)


def dit_sample(steps: Steps, peer: PeerDit) -> Row:
    """One guided Euler step, both evaluations in one doubled batch; the weights are held in the model's dtype."""
    stage = DitStage(steps.config)
    batch = random_batch(stage)
    shapes = nn.unbox(jax.eval_shape(stage.init, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: leaf.astype(stage.config.model.dtype), random_arrays(shapes))
    arguments = (params, *(jnp.asarray(batch[name]) for name in ("latents", "text", "text_mask")))
    null = dict(zip(("text", "text_mask"), map(np.array, null_text(*arguments[2:])), strict=True))
    step = partial(_guided_step, stage)
    flops = sum(count_flops(step, *arguments).values())
    peers = peer.sample(batch, null, GUIDANCE, TIMES)
    return _row("dit_sample", steps, partial(jax.jit(step), *arguments), peers, peer.name, flops)


def random_batch(stage: DitStage) -> dict[str, np.ndarray]:
    """Random latents and text states; every second caption fills half of its tokens."""
    cfg, rng = stage.config, np.random.default_rng(0)
    lengths = np.where(np.arange(cfg.batch_size) % 2, cfg.text_tokens // 2, cfg.text_tokens)
    return {
        "latents": rng.standard_normal((cfg.batch_size, *stage.denoiser.latent_shape), np.float32),
        "text": rng.standard_normal((cfg.batch_size, cfg.text_tokens, cfg.text_width), np.float32),
        "text_mask": np.arange(cfg.text_tokens) < lengths[:, None],
    }


def _guided_step(stage: DitStage, params: Any, x: Any, text: Any, mask: Any) -> jax.Array:
    denoiser = lambda *inputs: apply(stage.denoiser.network, params, *inputs)
    return euler_step(guided(denoiser, text, mask, Guidance(GUIDANCE)), x, *map(jnp.float32, TIMES))


def _row(name: str, steps: Steps, ours: Run, peers: Mapping[str, Run], peer: str, flops: int) -> Row:
    """The row beside the fastest of the peer's ways. mfu is against a matrix product measured between its runs."""
    side, dtype = steps.ceiling_side, steps.config.model.dtype
    product = _matrix_product(side, dtype)
    ours_seconds, product_seconds, *others = median_seconds([ours, product, *peers.values()], steps.repeats)
    seconds = dict(zip(peers, others, strict=True))
    way = min(seconds, key=lambda way: seconds[way])
    stage = DitStage(steps.config)
    ceiling = 2 * side**3 / product_seconds
    return row(
        name,
        (ours_seconds, seconds[way]),
        peer=f"{peer}, {way}",
        dtype=dtype,
        shape=[steps.config.batch_size, *stage.denoiser.latent_shape],
        parameters=count_parameters(nn.unbox(jax.eval_shape(stage.init, jax.random.key(0)))),
        flops=flops,
        ceiling_flops_per_second=ceiling,
        mfu=flops / ours_seconds / ceiling,
        peer_mfu=flops / seconds[way] / ceiling,
        peer_seconds_by_way=seconds,
    )


def _matrix_product(side: int, dtype: str) -> Run:
    a, b = (jax.random.normal(key, (side, side), dtype) for key in jax.random.split(jax.random.key(0)))
    # Into float32: the one form in which XLA's CPU back end multiplies in bf16 (nn/dense.py).
    return partial(jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32)), a, b)
