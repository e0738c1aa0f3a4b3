"""MATLAB's bicubic `imresize` in numpy, for integer factors up and down.

Two results circulate under that name, and networks score differently on them:

- `matlab`: MATLAB on a uint8 image, which rounds to uint8 between the two passes and
  replicates the border. The LR files of the usual benchmarks were made this way.
- `basicsr`: MATLAB on a double image, and BasicSR's `imresize`: float all the way,
  a mirrored border, one rounding at the end.
"""

from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from lkdn_jax.errors import InputError

Mode = Literal["matlab", "basicsr"]
Image = npt.NDArray[np.uint8]


def cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Evaluate the cubic convolution kernel with a = -0.5.

    Args:
        x: Distances from the centre [...], float64, in input pixels.

    Returns:
        Weights [...], float64 in [-0.08, 1], zero from distance 2 on.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing",
    1981, equation 15.
    """
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def taps(
    size: int, ratio: Fraction, mode: Mode
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """List which input pixels make each output pixel of one axis, and their weights.

    Pixel centres lie at half-integer positions, so output i sits at input
    (i + 1/2) / ratio - 1/2. When shrinking, the kernel is widened by 1 / ratio
    against aliasing.

    Args:
        size: Pixels of the input axis, >= 1.
        ratio: Output size over input size, > 0.
        mode: Decides the border: `matlab` replicates, `basicsr` mirrors.

    Returns:
        Indices [out, taps], int64 in [0, size - 1], and weights [out, taps], float64,
        each row summing to 1; out = ceil(size * ratio).

    Source: `contributions` in MATLAB's imresize.m.
    """
    p, q = ratio.numerator, ratio.denominator
    widest = max(p, q)
    # Positions times 2p are integers: no rounding can move a tap or break a tie.
    centre = (2 * np.arange(-(-size * p // q)) + 1) * q - p
    first = (centre - 4 * widest) // (2 * p) + 1
    index = first[:, None] + np.arange(-(-4 * widest // p))
    weight = cubic((centre[:, None] - 2 * p * index) / (2 * widest))
    weight /= weight.sum(axis=1, keepdims=True)
    if mode == "matlab":
        return np.clip(index, 0, size - 1), weight
    index %= 2 * size
    return np.where(index < size, index, 2 * size - 1 - index), weight


def _resize_axis(
    image: Image | npt.NDArray[np.float64], axis: int, ratio: Fraction, mode: Mode
) -> npt.NDArray[np.float64]:
    index, weight = taps(image.shape[axis], ratio, mode)
    shape = [1] * image.ndim
    shape[axis] = -1
    # One tap at a time: the memory needed stays that of the result.
    out = np.take(image, index[:, 0], axis) * weight[:, 0].reshape(shape)
    for t in range(1, index.shape[1]):
        out += np.take(image, index[:, t], axis) * weight[:, t].reshape(shape)
    return out


def _to_uint8(x: npt.NDArray[np.float64]) -> Image:
    # MATLAB rounds halves up; np.round would round them to even.
    return np.clip(np.floor(x + 0.5), 0, 255).astype(np.uint8)


def resize(image: Image, ratio: Fraction | int, mode: Mode = "matlab") -> Image:
    """Resize an image as MATLAB's `imresize(image, ratio, "bicubic")` does.

    Args:
        image: [h, w] or [h, w, c], uint8 in [0, 255].
        ratio: Output size over input size, > 0: an int to enlarge,
            `Fraction(1, scale)` to shrink (a float could not hold 1/3).
        mode: `matlab` (uint8 between the passes, replicated border) or `basicsr`
            (float64 all the way, mirrored border).

    Returns:
        [ceil(h * ratio), ceil(w * ratio)] or the same with [c], uint8 in [0, 255].

    Raises:
        InputError: An image that is not uint8, not of rank 2 or 3, or empty; a ratio
            that is not positive; an unknown mode.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise InputError(
            f"image is {image.dtype} {list(image.shape)}: bicubic resizing takes "
            "non-empty uint8 [h, w] or [h, w, c]; convert it first"
        )
    if mode not in get_args(Mode):
        raise InputError(
            f"bicubic mode {mode!r} is unknown: choose one of "
            f"{', '.join(get_args(Mode))}"
        )
    if ratio <= 0:
        raise InputError(f"ratio {ratio} must be positive: give a larger one")
    ratio = Fraction(ratio)
    rows = _resize_axis(image, 0, ratio, mode)
    both = _resize_axis(_to_uint8(rows) if mode == "matlab" else rows, 1, ratio, mode)
    return _to_uint8(both)


def check_scale(scale: int) -> None:
    """Refuse a factor that is not an integer >= 1.

    Args:
        scale: The factor.

    Raises:
        InputError: Any other number.
    """
    if scale != int(scale) or scale < 1:
        raise InputError(f"scale {scale} must be a whole number >= 1: use 2, 3 or 4")


def downscale(hr: Image, scale: int, mode: Mode = "matlab") -> Image:
    """Make the LR image of an HR image, with antialiasing.

    Args:
        hr: [h, w] or [h, w, c], uint8 in [0, 255]; h and w multiples of scale.
        scale: The factor, an integer >= 1.
        mode: See `resize`.

    Returns:
        [h / scale, w / scale] or the same with [c], uint8 in [0, 255].

    Raises:
        InputError: A size that is no multiple of scale, or what `resize` refuses.
    """
    check_scale(scale)
    if any(size % scale for size in hr.shape[:2]):
        raise InputError(
            f"HR size {hr.shape[0]}x{hr.shape[1]} (height x width) must be a multiple "
            f"of scale {scale}: crop the image first"
        )
    return resize(hr, Fraction(1, scale), mode)


def upscale(lr: Image, scale: int, mode: Mode = "matlab") -> Image:
    """Enlarge an image: the baseline every network is compared with.

    Args:
        lr: [h, w] or [h, w, c], uint8 in [0, 255].
        scale: The factor, an integer >= 1.
        mode: See `resize`.

    Returns:
        [h * scale, w * scale] or the same with [c], uint8 in [0, 255].

    Raises:
        InputError: What `resize` refuses.
    """
    check_scale(scale)
    return resize(lr, scale, mode)
