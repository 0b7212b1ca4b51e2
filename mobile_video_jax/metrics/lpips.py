"""LPIPS (arXiv 1801.03924): perceptual distance of two clips, the weighted distance of a classifier's features.

Version 0.1 of the authors' package lpips, whose heads are installed with it. The classifier's weights, torchvision's,
come from a file that the user names.
"""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, UInt8

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.metrics.reconstruction import Videos
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.weights.huggingface import open_tensors
from mobile_video_jax.weights.torch_file import read_tensors

PACKAGE = "lpips==0.1.4"
LPIPS = Metric("lpips", "LPIPS", "distance of a classifier's features, 0 for equal clips", more_is_better=False)

Net = Literal["vgg", "alex"]
Frames = Float[Array, "n h w 3"]

# Stages whose ends give features: the side of the max pool before (0: none), then width, side, stride and padding of
# each convolution. VGG-16 is configuration D of arXiv 1409.1556; AlexNet is that of arXiv 1404.5997.
STAGES: dict[Net, tuple[tuple[int, tuple[tuple[int, int, int, int], ...]], ...]] = {
    "vgg": (
        (0, ((64, 3, 1, 1),) * 2),
        (2, ((128, 3, 1, 1),) * 2),
        (2, ((256, 3, 1, 1),) * 3),
        (2, ((512, 3, 1, 1),) * 3),
        (2, ((512, 3, 1, 1),) * 3),
    ),
    "alex": (
        (0, ((64, 11, 4, 2),)),
        (3, ((192, 5, 1, 2),)),
        (3, ((384, 3, 1, 1),)),
        (0, ((256, 3, 1, 1),)),
        (0, ((256, 3, 1, 1),)),
    ),
}
SMALLEST: dict[Net, int] = {"vgg": 16, "alex": 31}  # pixels a side that leave one place in the last stage
FILES: dict[Net, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}  # torchvision's

# Of red, green and blue in [-1, 1]: ImageNet's means and deviations, rounded as the package has them.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
TOGETHER = 8  # frames in memory at once


class Backbone(nn.Module):
    """The features of frames in [-1, 1] at the end of each stage; modules have torchvision's names."""

    net: Net

    @nn.compact
    def __call__(self, frames: Frames) -> list[Float[Array, "n _ _ _"]]:
        x = (frames - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
        features, layer = [], 0  # torchvision counts each pool, convolution and relu
        for pool, convolutions in STAGES[self.net]:
            if pool:
                x, layer = nn.max_pool(x, (pool, pool), (2, 2)), layer + 1
            for width, side, stride, padding in convolutions:
                convolve = nn.Conv(width, (side, side), stride, padding, name=f"features.{layer}")
                x, layer = nn.relu(convolve(x)), layer + 2
            features.append(x)
        return features


def lpips(net: Net, params: Any, reference: Videos, video: Videos) -> Float64[np.ndarray, "b"]:
    """LPIPS of every uint8 clip [b t h w 3], averaged over its frames, at `load_lpips`'s parameters; 0 is alike.

    The sum over stages of the mean over positions of w · (x / |x| - y / |y|)^2, with the features x and y of a position
    and the head's weights w (equation 1, but weighted behind the square, as the authors' code does). Raises UserError
    for clips of different shapes and for frames too small for the net.
    """
    if reference.shape != video.shape:
        raise UserError(f"cannot compare clips of different shapes: {reference.shape} and {video.shape}")
    if min(reference.shape[2:4]) < SMALLEST[net]:
        height, width = reference.shape[2:4]
        raise UserError(f"LPIPS ({net}) needs frames of at least {SMALLEST[net]} pixels a side, not {height}x{width}")
    pairs = zip(reference, video, strict=True)
    return np.array([np.asarray(_clip_distances(net, params, *pair)).mean(dtype=np.float64) for pair in pairs])


@partial(jax.jit, static_argnums=0)
def _clip_distances(
    net: Net, params: Any, reference: UInt8[Array, "t h w 3"], video: UInt8[Array, "t h w 3"]
) -> Float[Array, "t"]:
    def distance(pair: UInt8[Array, "2 h w 3"]) -> Float[Array, ""]:
        features = apply(Backbone(net), params["backbone"], pair.astype(jnp.float32) / 127.5 - 1)
        unit = [x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in features]
        stages = zip(unit, params["heads"], strict=True)
        return jnp.stack([jnp.mean((x[0] - x[1]) ** 2 @ head) for x, head in stages]).sum()

    # Accelerators would round the factors of a product to fewer digits.
    with jax.default_matmul_precision("float32"):
        distances: jax.Array = jax.lax.map(distance, jnp.stack([reference, video], axis=1), batch_size=TOGETHER)
        return distances


def load_lpips(net: Net, path: Path) -> dict[str, Any]:
    """The parameters of LPIPS: the classifier's from a file, the heads' from the installed package.

    The file is torchvision's of VGG-16 or AlexNet, or a safetensors file of the same tensors. Raises UserError when it
    or the package is missing, or when it holds another network.
    """
    heads = read_tensors(find_head(net))
    return {
        "backbone": _read_backbone(net, path),
        "heads": [jnp.asarray(heads[f"lin{stage}.model.1.weight"].reshape(-1)) for stage in range(len(heads))],
    }


def _read_backbone(net: Net, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing: put torchvision's {FILES[net]} there, or its tensors as safetensors")
    tensors = open_tensors(path) if path.suffix == ".safetensors" else read_tensors(path)
    backbone = jax.eval_shape(lambda: init(Backbone(net), jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    if not {f"{module}.{kind}" for module in backbone for kind in ("weight", "bias")} <= tensors.keys():
        raise UserError(f"{path} holds another network than {net}: name torchvision's {FILES[net]}")
    return {
        module: {
            "kernel": jnp.asarray(tensors[f"{module}.weight"][:].transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(tensors[f"{module}.bias"][:]),
        }
        for module in backbone
    }


def find_head(net: Net) -> Path:
    """The file of the net's heads. Raises UserError when the package is not installed."""
    spec = importlib.util.find_spec("lpips")  # only looks: the package would import torch
    if spec is None or spec.origin is None:
        raise UserError(f"LPIPS's heads are missing: run make setup, or pip install --no-deps {PACKAGE}")
    return Path(spec.origin).parent / "weights" / "v0.1" / f"{net}.pth"
