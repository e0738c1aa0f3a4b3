"""PSNR and SSIM as super-resolution papers report them: on Y, in float64."""

import math

import numpy as np
import numpy.typing as npt

from lkdn_jax.errors import InputError

Array = npt.NDArray[np.generic]
Float64 = npt.NDArray[np.float64]

# Wang et al., "Image Quality Assessment: From Error Visibility to Structural
# Similarity", 2004, section III.B and III.C; MATLAB's ssim_index.m.
WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def rgb_to_y(image: Array) -> Float64:
    """Take the luma of an RGB image: BT.601, studio range.

    The result stays in float: rounding it, as an 8-bit `rgb2ycbcr` does, would move
    the PSNR of a good result by up to some hundredths of a dB.

    Args:
        image: [..., 3], uint8 or float in [0, 255], RGB.

    Returns:
        Y [...], float64 in [16, 235].

    Source: ITU-R BT.601; the coefficients of MATLAB's `rgb2ycbcr`.
    """
    r, g, b = (image[..., channel].astype(np.float64) for channel in range(3))
    return 16.0 + (65.481 * r + 128.553 * g + 24.966 * b) / 255.0


def _crop(x: Array, y: Array, border: int) -> tuple[Array, Array]:
    if x.shape != y.shape or x.ndim not in (2, 3):
        raise ValueError(
            f"shapes {x.shape} and {y.shape} must be equal and [h, w] or [h, w, c]: "
            "crop one image to the other"
        )
    if border < 0:
        raise ValueError(f"crop_border {border} must be >= 0: use the scale")
    inner = (slice(border, x.shape[0] - border), slice(border, x.shape[1] - border))
    return x[inner], y[inner]


def psnr(x: Array, y: Array, crop_border: int = 0) -> float:
    """Measure the peak signal-to-noise ratio, over all channels together.

    Args:
        x: [h, w] or [h, w, c], uint8 or float in [0, 255].
        y: The same shape and range.
        crop_border: Pixels left out on each side, >= 0; usually the scale.

    Returns:
        10 log10(255^2 / MSE) in dB; infinity for equal images.

    Raises:
        ValueError: Shapes that differ, or a negative border.
        InputError: Nothing left after cropping.
    """
    inner_x, inner_y = _crop(x, y, crop_border)
    if inner_x.size == 0:
        raise InputError(
            f"image {x.shape[0]}x{x.shape[1]} (height x width) has no pixels left "
            f"within a border of {crop_border}: PSNR needs one; use a larger image"
        )
    mse = np.mean(np.square(np.subtract(inner_x, inner_y, dtype=np.float64)))
    return math.inf if mse == 0 else float(10 * np.log10(255.0**2 / mse))


def _blur(x: Float64) -> Float64:
    # The Gaussian window is a product of two vectors: 22 taps instead of 121.
    taps = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / _SIGMA))
    taps /= taps.sum()
    h, w = x.shape[0] - WINDOW + 1, x.shape[1] - WINDOW + 1
    rows = np.zeros((h, x.shape[1]))
    for i, tap in enumerate(taps):
        rows += tap * x[i : i + h]
    out = np.zeros((h, w))
    for i, tap in enumerate(taps):
        out += tap * rows[:, i : i + w]
    return out


def _ssim_channel(x: Array, y: Array) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance = _blur(x * y) - product
    # The equation needs the two variances only as a sum: one blur less.
    variances = _blur(x * x + y * y) - squares
    score = (2 * product + _C1) * (2 * covariance + _C2)
    return float(np.mean(score / ((squares + _C1) * (variances + _C2))))


def ssim(x: Array, y: Array, crop_border: int = 0) -> float:
    """Measure the structural similarity, averaged over the channels.

    Args:
        x: [h, w] or [h, w, c], uint8 or float in [0, 255].
        y: The same shape and range.
        crop_border: Pixels left out on each side, >= 0; usually the scale.

    Returns:
        The mean over the positions where the 11x11 window (Gaussian, sigma 1.5) fits,
        in [-1, 1]; 1 for equal images.

    Raises:
        ValueError: Shapes that differ, or a negative border.
        InputError: Less than 11 pixels left in height or width after cropping.

    Source: Wang et al., 2004, equation 13; MATLAB's ssim_index.m.
    """
    inner_x, inner_y = _crop(x, y, crop_border)
    if min(inner_x.shape[:2]) < WINDOW:
        raise InputError(
            f"image {x.shape[0]}x{x.shape[1]} (height x width) is too small for SSIM: "
            f"within a border of {crop_border}, {WINDOW}x{WINDOW} pixels must be "
            "left; use a larger image"
        )
    # Channel by channel: half a dozen float64 maps are alive at a time.
    channels = zip(np.atleast_3d(inner_x).T, np.atleast_3d(inner_y).T, strict=True)
    return float(np.mean([_ssim_channel(a.T, b.T) for a, b in channels]))
