"""Speed and memory beside a peer's: both sides in one run on one machine, as ratios."""

import dataclasses
import itertools
import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.flops import count_parameters
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.parallel.mesh import make_mesh, put_batch
from mobile_video_jax.stages.ablate import CONSISTENT, EQUIVARIANT
from mobile_video_jax.stages.vae import VaeStage, VaeTraining, decoder_flops_per_frame
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.state import state_shardings
from mobile_video_jax.train.step import make_step
from mobile_video_jax.vae.coding import ClipCoder
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.model import Vae

Row = dict[str, Any]
Run = Callable[[], Any]

LOSS_TERMS = {
    "latent_consistency": CONSISTENT,
    "scale_equivariance": EQUIVARIANT,
    "perceptual": {"perceptual": 0.1},
    "adversarial": {"adversarial": 0.05},
}


@runtime_checkable
class PeerDecoder(Protocol):
    """Decodes latents [b, lt, lh, lw, c] and waits for the clip."""

    name: str
    parameters: int
    flops_per_512_frame: int

    def __call__(self, latents: np.ndarray) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Usage:
    """What decoding a clip takes: seconds, and peak bytes of the process or device before it and after it."""

    seconds: float
    baseline: int
    peak: int

    @property
    def growth(self) -> int:
        """Bytes of the peak that decoding added."""
        return self.peak - self.baseline


def vae_decode(models: Mapping[str, VaeConfig], peer: PeerDecoder, clip: ClipShape, repeats: int) -> Iterator[Row]:
    """One clip decoded by each of `models` and by the peer, whose latents must have the same shape."""
    for name, config in models.items():
        params, latents = _decoder_params(config), _latents(config, clip)
        seconds = interleaved(partial(_whole_decoder(config), params, latents), partial(peer, latents), repeats)
        yield _row(
            f"vae_decode/{name}",
            seconds,
            peer=peer.name,
            dtype=config.dtype,
            shape=[1, *dataclasses.astuple(clip), 3],
            parameters=count_parameters(params),
            peer_parameters=peer.parameters,
            flops_per_512_frame=decoder_flops_per_frame(config, ClipShape(49, 512, 512)),
            peer_flops_per_512_frame=peer.flops_per_512_frame,
        )


def vae_memory(config: VaeConfig, clips: Sequence[ClipShape], repeats: int) -> Iterator[Row]:
    """Clips streamed one latent frame at a time beside clips decoded whole, each in a process of its own."""
    for clip in clips:
        streamed, whole = (_alone(decoding_usage, config, clip, way, repeats) for way in ("streamed", "whole"))
        yield _row(
            f"vae_memory/{clip.frames}",
            (streamed.seconds, whole.seconds),
            peer="whole clip in one pass",
            dtype=config.dtype,
            shape=[1, *dataclasses.astuple(clip), 3],
            baseline_bytes=streamed.baseline,
            peak_bytes=streamed.peak,
            growth_bytes=streamed.growth,
            peer_baseline_bytes=whole.baseline,
            peer_peak_bytes=whole.peak,
            peer_growth_bytes=whole.growth,
        )


def vae_tiles(config: VaeConfig, side: int, tile: int, overlap: int, repeats: int) -> Iterator[Row]:
    """One latent frame of a running stream decoded in tiles beside the whole frame; sizes in pixels."""
    vae, params, latents = Vae(config), _decoder_params(config), _latents(config, ClipShape(1, side, side))
    cut, uncut = ClipCoder(vae, params, tile, overlap), ClipCoder(vae, params)
    # A stream compiles one program for its first chunk and one for all others: the others are timed.
    tiled, whole = (coder.decode(itertools.repeat(latents)) for coder in (cut, uncut))
    difference = float(np.abs(next(tiled) - next(whole)).max())
    yield _row(
        "vae_tiles",
        interleaved(partial(next, tiled), partial(next, whole), repeats),
        peer="whole frame in one pass",
        dtype=config.dtype,
        shape=[1, config.strides.time, side, side, 3],
        tile=tile,
        overlap=overlap,
        largest_difference=difference,
    )


def vae_losses(config: VaeTraining, terms: Mapping[str, Mapping[str, float]], repeats: int) -> Iterator[Row]:
    """A training step with each of `terms` (changes of the loss), and of an omni network, beside the config's own."""
    variants = {
        name: dataclasses.replace(config, loss=dataclasses.replace(config.loss, **term)) for name, term in terms.items()
    }
    variants["omni"] = dataclasses.replace(config, model=dataclasses.replace(config.model, omni=True))
    plain = _training_step(config)
    for name, variant in variants.items():
        yield _row(
            f"vae_losses/{name}",
            interleaved(_training_step(variant), plain, repeats),
            peer="plain objective",
            dtype=config.model.dtype,
            shape=[config.batch_size, *dataclasses.astuple(ClipShape.parse(config.clip)), 3],
            flops=VaeStage(variant).cost().flops,
            peer_flops=VaeStage(config).cost().flops,
        )


def interleaved(ours: Run, peer: Run, repeats: int) -> tuple[float, float]:
    """Median seconds of two functions that take turns, so that whatever slows the machine slows both."""
    ours_seconds, peer_seconds = _median_seconds([ours, peer], repeats)
    return ours_seconds, peer_seconds


def decoding_usage(config: VaeConfig, clip: ClipShape, way: str, repeats: int) -> Usage:
    """What this process takes to decode a clip, "whole" in one pass or "streamed" with frames dropped as they come.

    Seconds leave compilation out: a whole clip is decoded once before, and of a stream the median chunk beyond the
    second is scaled to the clip's length. Bytes include it.
    """
    params = jax.block_until_ready(_decoder_params(config))
    baseline = _peak_bytes()
    seconds = {"whole": _whole_seconds, "streamed": _streamed_seconds}[way](config, params, clip, repeats)
    return Usage(seconds, baseline, _peak_bytes())


def _whole_seconds(config: VaeConfig, params: Any, clip: ClipShape, repeats: int) -> float:
    [seconds] = _median_seconds([partial(_whole_decoder(config), params, _latents(config, clip))], repeats)
    return seconds


def _streamed_seconds(config: VaeConfig, params: Any, clip: ClipShape, repeats: int) -> float:
    latents = _latents(config, ClipShape(1, clip.height, clip.width))
    stream = ClipCoder(Vae(config), params).decode(itertools.repeat(latents))
    next(stream)
    count = clip.latent(config.strides)[0]
    [seconds] = _median_seconds([partial(next, stream)], max(repeats, count - 2))
    return seconds * clip.frames / config.strides.time


def _whole_decoder(config: VaeConfig) -> Callable[..., jax.Array]:
    return jax.jit(partial(apply, Vae(config), method="decode"))


def _decoder_params(config: VaeConfig) -> Any:
    space = config.strides.space
    video = jax.ShapeDtypeStruct((1, 1, space, space, 3), jnp.float32)
    shapes = nn.unbox(jax.eval_shape(partial(init, Vae(config)), jax.random.key(0), video))
    return _random({"decoder": shapes["decoder"]})


def _random(shapes: Any) -> Any:
    """Arrays of these shapes: compiling the initializers would take memory, and longer than what is measured."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.array(0.02 * rng.standard_normal(leaf.shape, np.float32)), shapes)


def _latents(config: VaeConfig, clip: ClipShape) -> Float32[np.ndarray, "1 lt lh lw c"]:
    shape = (1, *clip.latent(config.strides), config.strides.channels)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _training_step(config: VaeTraining) -> Run:
    """A function that takes one step on a random batch and goes on from there at the next call."""
    stage, mesh = VaeStage(config), make_mesh(config.mesh)
    optimizer = make_optimizer(config.optimizer, config.steps)
    shapes, shardings = state_shardings(stage, optimizer, mesh)
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state = jax.device_put(fresh.replace(params=_random(shapes.params)), shardings)
    shape = (config.batch_size, *dataclasses.astuple(stage.clip), 3)
    batch = put_batch({"video": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}, mesh)
    step = make_step(stage, optimizer, mesh, shardings)

    def run() -> Any:
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    return run


def _median_seconds(runs: Sequence[Run], repeats: int) -> list[float]:
    """Median seconds of each function, one run of each after the other, after a first run that compiles."""
    for run in runs:
        _seconds(run)
    return np.median([[_seconds(run) for run in runs] for _ in range(repeats)], axis=0).tolist()


def _seconds(run: Run) -> float:
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def _alone(function: Callable[..., Usage], *args: Any) -> Usage:
    """The function's value in a new process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _peak_bytes() -> int:
    """The most bytes this process has had resident so far, or on an accelerator the most that the device held.

    Not getrusage's ru_maxrss: a process inherits that from the one that started it. Raises UserError where /proc is
    missing.
    """
    if stats := jax.local_devices()[0].memory_stats():
        return stats["peak_bytes_in_use"]
    status = Path("/proc/self/status")
    if not status.exists():
        raise UserError("peak memory is read from /proc: run vae_memory on Linux, or leave it out with --only")
    [kibibytes] = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    return 1024 * int(kibibytes)


def _row(name: str, seconds: tuple[float, float], *, peer: str, dtype: str, shape: list[int], **more: Any) -> Row:
    ours_seconds, peer_seconds = seconds
    return {
        "name": name,
        "ours_seconds": ours_seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / ours_seconds,
        "peer": peer,
        "dtype": dtype,
        "shape": shape,
        **more,
        "hardware": hardware(),
        "commit": git_revision(),
    }
