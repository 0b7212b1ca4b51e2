"""Trained VAEs: coding clips in one pass, in pieces, and over a mesh."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.parallel.mesh import clip_sharding, replicated
from mobile_video_jax.train.checkpoint import restore_model
from mobile_video_jax.vae.coder import ClipCoder, Network
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.ltx.model import LtxVae
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_bytes, to_signed
from mobile_video_jax.vae.wan.config import WanVaeConfig
from mobile_video_jax.vae.wan.model import WanVae


@dataclasses.dataclass(frozen=True)
class VaeBundle:
    """A trained VAE: its network, parameters and latent statistics."""

    vae: Network
    params: Any
    stats: LatentStats

    @classmethod
    def load(cls, run: Path, model: Mapping[str, Any], step: int | None = None) -> "VaeBundle":
        """Reads the VAE of a run whose config has this `model`, at a step or the newest, onto the first device.

        The statistics are those of the finished run: latents of an earlier step are normalised by them as well.

        Raises UserError where the run is unfinished or damaged.
        """
        vae, stats = network_of(model), LatentStats.load(run)
        space = vae.config.strides.space
        shapes = nn.unbox(jax.eval_shape(lambda: init(vae, jax.random.key(0), jnp.zeros((1, 1, space, space, 3)))))
        device = SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
        return cls(vae, restore_model(run, target, step), stats)

    @property
    def decodes_in_chunks(self) -> bool:
        """True where the decoder is causal in time; LTX-Video's published ones are not."""
        return getattr(self.vae.config, "decoder_streams", True)

    def encode(self, params: Any, video: jax.Array) -> jax.Array:
        """Normalised latents (the posterior's mean) of clips in [-1, 1]."""
        return self.stats.normalize(apply(self.vae, params, video, method="encode").mean)

    def coder(self, tile: int = 0, overlap: int = 0) -> ClipCoder:
        """Codes long clips chunk by chunk and large frames tile by tile; its latents are not normalised."""
        return ClipCoder(self.vae, self.params, tile, overlap)

    def decode_in_pieces(self, latents: jax.Array, chunk: int, tile: int, overlap: int) -> Clips:
        """uint8 clips of normalised latents, `chunk` latent frames at a time (0: all) and tile by tile (0: whole).

        Raises UserError for more than one chunk where the decoder is not causal in time.
        """
        ends = range(chunk, latents.shape[1], chunk) if chunk else ()
        chunks = np.split(np.asarray(self.stats.denormalize(latents)), list(ends), axis=1)
        decoded = self.coder(tile, overlap).decode(chunks)
        return np.concatenate([np.asarray(to_bytes(jnp.asarray(part))) for part in decoded], axis=1)

    def decode(self, params: Any, latents: jax.Array) -> jax.Array:
        """Clips in about [-1, 1] of normalised latents."""
        video: jax.Array = apply(self.vae, params, self.stats.denormalize(latents), method="decode")
        return video


def network_of(model: Mapping[str, Any]) -> Network:
    """The VAE of a run's config.model; published ones name their family."""
    if model.get("family") == LtxVaeConfig.family:
        return LtxVae(from_mapping(LtxVaeConfig, model))
    if model.get("family") == WanVaeConfig.family:
        return WanVae(from_mapping(WanVaeConfig, model))
    return Vae(from_mapping(VaeConfig, model))


def published_network(config: VaeConfig) -> LtxVae | WanVae | None:
    """The published VAE whose encoder a config has."""
    if isinstance(config.encoder, LtxVaeConfig):
        return LtxVae(config.encoder)
    return WanVae(config.encoder) if isinstance(config.encoder, WanVaeConfig) else None


def check_rows(strides: Compression, clip: ClipShape, rows: int) -> None:
    """Raises UserError where `rows` devices cannot share a clip."""
    latent_rows = clip.latent(strides)[1]
    if latent_rows % rows:
        raise UserError(f"{rows} devices cannot share the {latent_rows} rows of latents of {clip}: use a divisor")


def on_mesh(bundle: VaeBundle, mesh: Mesh) -> tuple[Callable[[Clips], np.ndarray], Callable[[np.ndarray], Clips]]:
    """`encode` (uint8 clips to normalised latents) and `decode` (back), batches and rows sharded over the mesh.

    XLA exchanges the rows at shard borders that convolutions reach over, so the result is that of one device.
    """
    whole, sharded = replicated(mesh), clip_sharding(mesh)
    params = jax.device_put(bundle.params, whole)
    on_devices = functools.partial(jax.jit, in_shardings=(whole, sharded), out_shardings=whole)

    @on_devices
    def encode(params: Any, video: jax.Array) -> jax.Array:
        return bundle.encode(params, to_signed(video))

    @on_devices
    def decode(params: Any, latents: jax.Array) -> jax.Array:
        return to_bytes(bundle.decode(params, latents))

    return (
        lambda video: np.asarray(encode(params, jax.device_put(video, sharded))),
        lambda latents: np.asarray(decode(params, jax.device_put(latents, sharded))),
    )
