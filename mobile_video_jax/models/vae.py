"""Trained models read back from run directories."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.mesh import clip_sharding, replicated
from mobile_video_jax.train.checkpoint import copy_model, restore_model
from mobile_video_jax.train.run import NAME as RUN_JSON
from mobile_video_jax.train.run import read_run
from mobile_video_jax.vae.coder import ClipCoder
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.latent_stats import NAME as STATS_JSON
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.ltx.model import LtxVae
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_bytes, to_signed


@dataclasses.dataclass(frozen=True)
class VaeBundle:
    """A trained VAE, ready to code clips."""

    vae: Vae | LtxVae
    params: Any
    stats: LatentStats

    @classmethod
    def load(cls, run: Path) -> "VaeBundle":
        """Reads a VAE run. Raises UserError where it is missing, unfinished or damaged."""
        vae = _network(read_run(run, "vae")["config"]["model"])
        stats = LatentStats.load(run)
        space = vae.config.strides.space
        return cls(vae, restore_params(run, vae, jnp.zeros((1, 1, space, space, 3))), stats)

    @property
    def decodes_in_chunks(self) -> bool:
        """Whether the decoder is causal in time; LTX-Video's published ones are not."""
        return not isinstance(self.vae, LtxVae) or self.vae.config.decoder_streams

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
        cuts = range(chunk, latents.shape[1], chunk) if chunk else ()
        chunks = np.split(np.asarray(self.stats.denormalize(latents)), list(cuts), axis=1)
        decoded = self.coder(tile, overlap).decode(chunks)
        return np.concatenate([np.asarray(to_bytes(jnp.asarray(part))) for part in decoded], axis=1)

    def decode(self, params: Any, latents: jax.Array) -> jax.Array:
        """Clips in about [-1, 1] of normalised latents."""
        return apply(self.vae, params, self.stats.denormalize(latents), method="decode")


def _network(model: dict[str, Any]) -> Vae | LtxVae:
    """The VAE of a run's config.model; one of LTX-Video's says so by its family."""
    if model.get("family") == LtxVaeConfig.family:
        return LtxVae(from_mapping(LtxVaeConfig, model))
    return Vae(from_mapping(VaeConfig, model))


def check_rows(bundle: VaeBundle, clip: ClipShape, rows: int) -> None:
    """Raises UserError where `rows` devices cannot share a clip."""
    latent_rows = clip.latent(bundle.vae.config.strides)[1]
    if latent_rows % rows:
        raise UserError(f"{rows} devices cannot share the {latent_rows} rows of latents of {clip}: use a divisor")


def on_mesh(bundle: VaeBundle, mesh: Mesh) -> tuple[Callable[[Clips], np.ndarray], Callable[[np.ndarray], Clips]]:
    """`encode` (uint8 clips to normalised latents) and `decode` (back), batches and rows cut over the mesh.

    XLA exchanges the rows at the cuts that convolutions reach over, so the result is that of one device.
    """
    whole, cut = replicated(mesh), clip_sharding(mesh)
    params = jax.device_put(bundle.params, whole)
    compiled: dict[str, Any] = {"in_shardings": (whole, cut), "out_shardings": whole}
    encode = jax.jit(lambda params, video: bundle.encode(params, to_signed(video)), **compiled)
    decode = jax.jit(lambda params, latents: to_bytes(bundle.decode(params, latents)), **compiled)
    return (
        lambda video: np.asarray(encode(params, jax.device_put(video, cut))),
        lambda latents: np.asarray(decode(params, jax.device_put(latents, cut))),
    )


def restore_params(run: Path, module: nn.Module, *example: Any) -> Any:
    """A run's averaged weights on the first device, for a module called with arrays like `example`."""
    shapes = nn.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), *example)["params"]))
    device = SingleDeviceSharding(jax.local_devices()[0])
    return restore_model(run, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes))


def copy_bundle(run: Path, out: Path) -> None:
    """Copies what using a run needs (its newest model, run.json, latent statistics), unless `out` is there already."""
    if (out / RUN_JSON).exists():
        return
    read_run(run)
    with replacing(out) as temporary:
        copy_model(run, temporary)
        for name in (RUN_JSON, STATS_JSON):
            if (run / name).exists():
                (temporary / name).write_bytes((run / name).read_bytes())
