"""Tell which interpolation made an LR image.

A network learns to invert one interpolation: LR images from another cost it up to
9 dB, which looks like a bug in the network.
"""

from typing import Any

import numpy as np
from PIL import Image as PillowImage

from lkdn_jax.data.bicubic import Image, downscale

PAPER = "MATLAB's bicubic on uint8 images"
UNKNOWN = "an unknown interpolation"

# Mean difference in grey levels up to which an image is taken for an interpolation's:
# OpenCV computes with 11 bits, so ours is one level off here and there.
_CLOSE = 0.05


def interpolations(hr: Image, scale: int) -> dict[str, Image]:
    """Shrink an image in the ways people do, other than the paper's.

    Args:
        hr: Image [h·s, w·s, 3], uint8.
        scale: The factor s.

    Returns:
        LR images [h, w, 3], uint8, by the name of the interpolation.
    """
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    blocks = hr.reshape(height, scale, width, scale, -1).mean(axis=(1, 3))
    # OpenCV adds two to the sum of four pixels and shifts; otherwise it rounds to even.
    area = np.floor(blocks + 0.5) if scale == 2 else np.rint(blocks)
    pillow = PillowImage.fromarray(hr).resize(
        (width, height), PillowImage.Resampling.BICUBIC
    )
    return {
        "BasicSR's bicubic (MATLAB's on double images)": downscale(
            hr, scale, "basicsr"
        ),
        "Pillow's bicubic": np.asarray(pillow),
        "OpenCV's INTER_AREA": area.astype(np.uint8),
        "OpenCV's INTER_CUBIC (no antialiasing)": sample_cubic(hr, scale),
    }


def sample_cubic(hr: Image, scale: int) -> Image:
    """Shrink an image as OpenCV's INTER_CUBIC does.

    Args:
        hr: Image [h·s, w·s, 3], uint8.
        scale: The factor s.

    Returns:
        Image [h, w, 3], uint8; here and there one grey level off OpenCV's.
    """
    # It reads four pixels a row, with a = −0.75, however much it shrinks; all output
    # pixels of a whole factor lie alike between input pixels.
    a, offset = -0.75, (scale - 1) / 2 % 1
    distances = np.abs(np.array([-1, 0, 1, 2]) - offset)
    weights = np.where(
        distances <= 1,
        (a + 2) * distances**3 - (a + 3) * distances**2 + 1,
        a * (distances**3 - 5 * distances**2 + 8 * distances - 4),
    )
    out: Any = hr
    for axis in (0, 1):
        first = np.arange(hr.shape[axis] // scale) * scale + (scale - 1) // 2
        taps = [
            weight * np.take(out, np.clip(first + t, 0, hr.shape[axis] - 1), axis)
            for t, weight in zip((-1, 0, 1, 2), weights, strict=True)
        ]
        out = sum(taps)
    return np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)


def name_interpolation(lr: Image, hr: Image, scale: int) -> str | None:
    """Name the interpolation that made an LR image, if it was not the paper's.

    Args:
        lr: Image [h, w, 3], uint8.
        hr: Image [h·s, w·s, 3], uint8.
        scale: The factor s.

    Returns:
        None if `lr` is, to the bit, MATLAB's bicubic on uint8; else the interpolation
        it looks like, or `UNKNOWN`.
    """
    if np.array_equal(lr, downscale(hr, scale)):
        return None
    errors = {
        name: float(np.abs(lr.astype(int) - made).mean())
        for name, made in interpolations(hr, scale).items()
    }
    name = min(errors, key=lambda name: errors[name])
    return name if errors[name] < _CLOSE else UNKNOWN
