"""Speed and memory of the VAE beside a peer's decoder, and beside other ways to run it."""

import dataclasses
import itertools
import multiprocessing
import re
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

from mobile_video_jax.bench.timing import Row, interleaved, median_seconds, random_arrays, row, training_step
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.vae.coder import ClipCoder
from mobile_video_jax.vae.config import CONSISTENT, CONSISTENT_MSE, EQUIVARIANT, TURNED, VaeConfig
from mobile_video_jax.vae.decoder_flops import decoder_flops_per_frame
from mobile_video_jax.vae.model import Vae

LOSS_TERMS = {
    "latent_consistency": CONSISTENT,
    "consistency_mse": CONSISTENT_MSE,
    "scale_equivariance": EQUIVARIANT,
    "eq": TURNED,
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
    """Costs of decoding a clip: seconds, and peak bytes of the process or device before it and after it."""

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
        yield row(
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
        yield row(
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
    in_tiles, in_one = ClipCoder(vae, params, tile, overlap), ClipCoder(vae, params)
    # A stream compiles one program for its first chunk and one for all others: the others are timed.
    tiled, whole = (coder.decode(itertools.repeat(latents)) for coder in (in_tiles, in_one))
    difference = float(np.abs(next(tiled) - next(whole)).max())
    yield row(
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
    from_start = dataclasses.replace(config.optimizer, generator_alone=0)
    config = dataclasses.replace(config, optimizer=from_start, discriminator_lead=0)  # steps with all of their terms
    variants = {
        name: dataclasses.replace(config, loss=dataclasses.replace(config.loss, **term)) for name, term in terms.items()
    }
    variants["omni"] = dataclasses.replace(config, model=dataclasses.replace(config.model, omni=True))
    stage = VaeStage(config)
    shape = (config.batch_size, *dataclasses.astuple(stage.clip), 3)
    batch = {"video": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    plain = training_step(stage, batch)
    for name, variant in variants.items():
        yield row(
            f"vae_losses/{name}",
            interleaved(training_step(VaeStage(variant), batch), plain, repeats),
            peer="plain objective",
            dtype=config.model.dtype,
            shape=list(shape),
            flops=VaeStage(variant).cost().flops,
            peer_flops=stage.cost().flops,
        )


def decoding_usage(config: VaeConfig, clip: ClipShape, way: str, repeats: int) -> Usage:
    """Costs of decoding a clip in this process, "whole" in one pass or "streamed" with frames dropped as they come.

    Seconds leave compilation out: a whole clip is decoded once before, and of a stream the median chunk beyond the
    second is scaled to the clip's length. Bytes include it.
    """
    params = jax.block_until_ready(_decoder_params(config))
    baseline = _peak_bytes()
    seconds = {"whole": _whole_seconds, "streamed": _streamed_seconds}[way](config, params, clip, repeats)
    return Usage(seconds, baseline, _peak_bytes())


def _whole_seconds(config: VaeConfig, params: Any, clip: ClipShape, repeats: int) -> float:
    [seconds] = median_seconds([partial(_whole_decoder(config), params, _latents(config, clip))], repeats)
    return seconds


def _streamed_seconds(config: VaeConfig, params: Any, clip: ClipShape, repeats: int) -> float:
    latents = _latents(config, ClipShape(1, clip.height, clip.width))
    stream = ClipCoder(Vae(config), params).decode(itertools.repeat(latents))
    next(stream)
    count = clip.latent(config.strides)[0]
    [seconds] = median_seconds([partial(next, stream)], max(repeats, count - 2))
    return seconds * clip.frames / config.strides.time


def _whole_decoder(config: VaeConfig) -> Callable[..., jax.Array]:
    return jax.jit(partial(apply, Vae(config), method="decode"))


def _decoder_params(config: VaeConfig) -> Any:
    space = config.strides.space
    video = jax.ShapeDtypeStruct((1, 1, space, space, 3), jnp.float32)
    shapes = nn.unbox(jax.eval_shape(partial(init, Vae(config)), jax.random.key(0), video))
    return random_arrays({"decoder": shapes["decoder"]})


def _latents(config: VaeConfig, clip: ClipShape) -> Float32[np.ndarray, "1 lt lh lw c"]:
    shape = (1, *clip.latent(config.strides), config.strides.channels)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


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
        peak: int = stats["peak_bytes_in_use"]
        return peak
    status = Path("/proc/self/status")
    if not status.exists():
        raise UserError("peak memory is read from /proc: run vae_memory on Linux, or leave it out with --only")
    [kibibytes] = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    return 1024 * int(kibibytes)
