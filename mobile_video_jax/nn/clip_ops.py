"""Operations on clips: convolutions per frame and over time, pixel shuffling and unshuffling."""

import itertools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

Clip = Float[Array, "b t h w c"]
Resized = Float[Array, "_ _ _ _ _"]


def frame_conv(
    x: Clip, kernel: Float[Array, "kh kw c_in o"], *, stride: int = 1, depthwise: bool = False
) -> Float[Array, "b t h_out w_out o"]:
    """Convolves each frame in 2-D, zero-padded so that a stride of 1 keeps the size; `depthwise` each channel alone."""
    frames = x.reshape(-1, *x.shape[2:])
    y = lax.conv_general_dilated(
        frames,
        kernel,
        window_strides=(stride, stride),
        padding=[((size - 1) // 2, size // 2) for size in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] if depthwise else 1,
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


def clip_conv(x: Clip, kernel: Float[Array, "kt kh kw c o"]) -> Resized:
    """Convolves over time without padding and over space zero-padded to the same size.

    XLA's CPU back end is about four times slower on a 3-D convolution than on the same sum of 2-D ones.
    """
    y: Resized = lax.platform_dependent(x, kernel, cpu=_sum_of_taps, default=_native)
    return y


def depthwise_conv(x: Clip, kernel: Float[Array, "kt kh kw c"]) -> Resized:
    """Convolves each channel alone, over time without padding and over space zero-padded to the same size.

    XLA's CPU back end is many times slower on a grouped convolution than on the same sum of products.
    """
    y: Resized = lax.platform_dependent(x, kernel, cpu=_sum_of_products, default=_grouped)
    return y


def _grouped(x: Clip, kernel: Float[Array, "kt kh kw c"]) -> Resized:
    return _native(x, kernel[..., None, :], groups=x.shape[-1])


def _sum_of_products(x: Clip, kernel: Float[Array, "kt kh kw c"]) -> Resized:
    taps, height, width, _ = kernel.shape
    sides = [((size - 1) // 2, size // 2) for size in (height, width)]
    padded = jnp.pad(x, [(0, 0), (0, 0), *sides, (0, 0)])
    t, h, w = x.shape[1] - taps + 1, x.shape[2], x.shape[3]
    total = jnp.zeros((), x.dtype)
    for i, j, k in itertools.product(range(taps), range(height), range(width)):
        total = total + padded[:, i : i + t, j : j + h, k : k + w] * kernel[i, j, k]
    return total


def _native(x: Clip, kernel: Float[Array, "kt kh kw i o"], groups: int = 1) -> Resized:
    height, width = kernel.shape[1:3]
    padding = ((0, 0), ((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2))
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1, 1),
        padding,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=groups,
    )


def _sum_of_taps(x: Clip, kernel: Float[Array, "kt kh kw c o"]) -> Resized:
    taps = kernel.shape[0]
    length = x.shape[1] - taps + 1
    total = frame_conv(x[:, :length], kernel[0])
    for tap in range(1, taps):
        total = total + frame_conv(x[:, tap : tap + length], kernel[tap])
    return total


def pad_past(x: Shaped[Array, "b t *rest"], count: int) -> Shaped[Array, "b more *rest"]:
    """Prepends `count` copies of the first frame, so that a causal layer does not change the frame count."""
    return jnp.concatenate([jnp.repeat(x[:, :1], count, axis=1), x], axis=1) if count else x


def shuffle_down(x: Clip, time: int, space: int, *, starts: bool = True) -> Resized:
    """Moves blocks of time x space x space pixels into channels (pixel unshuffle).

    [b, t, h, w, c] becomes [b, t / time, h / space, w / space, c * time * space^2]. At the start of a clip (`starts`)
    the first frame is repeated to fill a block of its own, so that t = time * k + 1 frames become k + 1.
    """
    x = pad_past(x, time - 1) if starts else x
    b, t, h, w, c = x.shape
    x = x.reshape(b, t // time, time, h // space, space, w // space, space, c)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, t // time, h // space, w // space, -1)


def shuffle_up(x: Clip, time: int, space: int, *, starts: bool = True) -> Resized:
    """Inverse of shuffle_down (PixelShuffle, arXiv 1609.05158); drops the copies of a clip's first frame."""
    b, t, h, w, c = x.shape
    x = x.reshape(b, t, h, w, time, space, space, c // (time * space**2))
    x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, t * time, h * space, w * space, -1)[:, time - 1 if starts else 0 :]
