"""Features of clips in the middle of a network trained on such clips, for distances between sets of clips."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.diffusion.guidance import null_text
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.vae.pixels import to_signed

Features = Float[np.ndarray, "n d"]


def backbone_features(run: Path, batch_size: int = 30) -> Callable[[Clips], Features]:
    """A function from clips [n t h w 3] to features [n d]: the mean over positions of its middle feature map.

    Clips are encoded by the run's VAE and passed clean (t = 0) and without a caption. Published Fréchet video distances
    use I3D (metrics/i3d.py), which was trained on 16 frames of real scenes; this network knows clips of their own kind.
    """
    opened = Run.open(run)
    denoiser, bundle = opened.denoiser, opened.vae()
    params = opened.sharded_params(make_mesh(MeshConfig(data=1), jax.local_devices()[:1]))
    shapes = denoiser.input_shapes(1)
    text, mask = (jnp.zeros(shapes[name].shape, shapes[name].dtype) for name in ("text", "text_mask"))

    @jax.jit
    def features(params: Any, coder: Any, video: jax.Array) -> jax.Array:
        latents, count = bundle.encode(coder, to_signed(video)), video.shape[0]
        nothing = (jnp.repeat(x, count, axis=0) for x in null_text(text, mask))
        _, maps = denoiser.velocity_and_maps(params, latents, jnp.zeros(count), *nothing)
        return jnp.mean(maps[(len(maps) - 1) // 2], axis=(1, 2, 3), dtype=jnp.float32)

    def clip_features(clips: Clips) -> Features:
        filled = np.concatenate([clips, np.repeat(clips[-1:], -len(clips) % batch_size, axis=0)])
        parts = [filled[i : i + batch_size] for i in range(0, len(filled), batch_size)]
        rows = [np.asarray(features(params, bundle.params, part)) for part in parts]
        features_of_clips: np.ndarray = np.concatenate(rows)[: len(clips)]
        return features_of_clips

    return clip_features
