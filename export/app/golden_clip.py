"""A whole clip by JAX in float32, which packages and assets are to generate from the same noise."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from export.app.golden import Tensors, in_float32, precisely, row, tokens
from export.app.golden_stream import chunk_sizes, stream_latents
from export.app.settings import app_solver
from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.diffusion.samplers import fresh_noise
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.models.networks import build_network
from mobile_video_jax.text.encoder import pad
from mobile_video_jax.vae.pixels import to_bytes

Captions = tuple[jax.Array, jax.Array]


def noise(shape: tuple[int, ...]) -> Float[np.ndarray, "1 t h w c"]:
    """The noise that every golden clip of latents of this shape starts from."""
    return np.random.default_rng(0).standard_normal((1, *shape), np.float32)


def clip_tensors(generator: Generator, prompt: str, steps: int, *, stream: bool = False) -> Tensors:
    """A clip without guidance: its noise and latents, and `video`, frames [t, h, w, 3] in bytes.

    `fresh_noise` is that of later steps [steps - 1, c, 1, s], which a student that noises x0 afresh takes. A
    `stream` is sampled chunk by chunk.
    """
    denoiser, vae = generator.denoiser, generator.vae
    bundle = dataclasses.replace(vae, vae=in_float32(vae.vae))
    config = generator.sample_config(steps=steps, guidance=1.0, solver=app_solver(denoiser.sampling))
    text, mask = pad(generator.text_encoder.encode([prompt]), denoiser.config.text_tokens)
    start = noise(denoiser.latent_shape_of(generator.clip))
    captions = jnp.asarray(text), jnp.asarray(mask)
    if stream:
        latents = stream_latents(generator, config, start, captions)
    else:
        network = build_network(dataclasses.replace(denoiser.config.model, dtype="float32", remat="none"))
        draw = jax.jit(functools.partial(sample_latents, network, config))
        latents = precisely(draw, generator.params, jnp.asarray(start), *captions)
    video = precisely(jax.jit(bundle.decode), vae.params, jnp.asarray(latents))
    fresh = _fresh_noise(start, config, chunk_sizes(denoiser.config.transformer, start.shape[1]) if stream else ())
    return {
        "noise": row(tokens(start)),
        **({"fresh_noise": fresh} if config.solver == "renoise" else {}),
        "latents": row(tokens(latents)),
        "video": np.asarray(to_bytes(jnp.asarray(video)))[0],
    }


def _fresh_noise(
    start: Latents | np.ndarray, config: SampleConfig, chunks: tuple[int, ...] | list[int]
) -> Float[np.ndarray, "later c 1 s"]:
    """That of the steps after the first, of a whole clip or of each chunk."""
    parts = np.split(start, np.cumsum(chunks)[:-1], axis=1) if len(chunks) else [start]

    def of_steps(part: Any) -> np.ndarray:
        steps = [row(tokens(fresh_noise(jnp.asarray(part), jnp.int32(i)))) for i in range(config.steps - 1)]
        return np.concatenate(steps) if steps else row(tokens(part))[:0]

    return np.concatenate([of_steps(part) for part in parts], axis=3)
