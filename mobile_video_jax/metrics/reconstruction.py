"""Closeness of a decoded clip to the clip it came from: PSNR, SSIM and flicker."""

import numpy as np
from jaxtyping import Float64, UInt8
from scipy import ndimage

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.metric import Metric

# Any array: where tests check annotated shapes at run time, a narrower type would hide the UserError of `_check`.
Videos = np.ndarray
PerClip = Float64[np.ndarray, "*b"]

PEAK = 255.0
# Wang et al. 2004: an 11x11 Gaussian window of sigma 1.5 and the stabilisers (0.01 L)^2 and (0.03 L)^2.
SIGMA, RADIUS = 1.5, 5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2

PSNR = Metric("psnr", "PSNR", "10 log10(255² / mean squared error)", "dB", more_is_better=True)
FIRST_FRAME_PSNR = Metric("first_frame_psnr", "PSNR of the first frame", unit="dB", more_is_better=True)
SSIM = Metric("ssim", "SSIM", "structural similarity, 1 for equal clips", more_is_better=True)
FLICKER = Metric(
    key="flicker",
    name="flicker",
    meaning="change from frame to frame that the real clip does not have",
    unit="grey levels",
    more_is_better=False,
    frames=2,
)


def psnr(reference: Videos, video: Videos) -> PerClip:
    """Peak signal-to-noise ratio of every clip in dB: 10 log10(255^2 / MSE), with the MSE over the whole clip.

    One clip [t h w 3] gives an array without axes, a batch [b t h w 3] gives one value a clip. Identical clips give
    infinity, so average the MSE rather than the PSNR where that may happen. Raises UserError unless both are uint8
    clips of one shape.
    """
    _check(reference, video)
    difference = reference.astype(np.float32) - video
    error = np.mean(np.square(difference), axis=(-4, -3, -2, -1), dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(PEAK**2 / error))


def first_frame_psnr(reference: Videos, video: Videos) -> PerClip:
    """PSNR of every clip's first frame, see `psnr`."""
    return psnr(reference[..., :1, :, :, :], video[..., :1, :, :, :])


def ssim(reference: Videos, video: Videos) -> PerClip:
    """Structural similarity of every clip in [-1, 1], averaged over its frames, colours and window positions.

    Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity",
    IEEE Transactions on Image Processing 13(4), 2004, equation 13, on each colour channel; windows that would reach
    over the border are left out. Shapes and errors as in `psnr`; frames smaller than the window raise UserError too.
    """
    _check(reference, video)
    height, width = reference.shape[-3:-1]
    if min(height, width) <= 2 * RADIUS:
        raise UserError(f"SSIM needs frames of at least {2 * RADIUS + 1} pixels a side; these are {height}x{width}")
    shape = reference.shape[:-3]
    pairs = zip(reference.reshape(-1, height, width, 3), video.reshape(-1, height, width, 3), strict=True)
    return np.asarray(np.mean(np.reshape([_frame_ssim(a, b) for a, b in pairs], shape), axis=-1))


def flicker(reference: Videos, video: Videos) -> PerClip:
    """Temporal difference error of every clip in grey levels (0 to 255): mean |(y[t+1] - y[t]) - (x[t+1] - x[t])|.

    It is 0 where the error y - x is the same in all frames. Shapes and errors as in `psnr`; clips of one frame raise
    UserError too.
    """
    _check(reference, video)
    if reference.shape[-4] < 2:
        raise UserError("flicker needs clips of at least 2 frames; these have 1")
    change = np.diff(video.astype(np.float32) - reference, axis=-4)
    return np.asarray(np.mean(np.abs(change), axis=(-4, -3, -2, -1), dtype=np.float64))


def _frame_ssim(reference: UInt8[np.ndarray, "h w 3"], video: UInt8[np.ndarray, "h w 3"]) -> float:
    # float64, because E[x^2] - E[x]^2 cancels nearly all digits in the flat areas where SSIM is most sensitive.
    x, y = reference.astype(np.float64), video.astype(np.float64)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variances = _window_mean(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return float(np.mean(luminance * structure))


def _window_mean(image: Float64[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "y x 3"]:
    smooth = ndimage.gaussian_filter(image, SIGMA, radius=RADIUS, axes=(0, 1))
    return np.asarray(smooth[RADIUS:-RADIUS, RADIUS:-RADIUS])


def _check(reference: Videos, video: Videos) -> None:
    if reference.shape != video.shape:
        raise UserError(f"cannot compare clips of different shapes: {reference.shape} and {video.shape}")
    if reference.dtype != np.uint8 or video.dtype != np.uint8:
        raise UserError(f"clips are compared as uint8 (0 to 255); these are {reference.dtype} and {video.dtype}")
    if reference.ndim not in (4, 5) or reference.shape[-1] != 3:
        raise UserError(f"clips are [t h w 3] or [b t h w 3]; this one is {list(reference.shape)}")
