"""Opacity, upscaled: what is all one value stays so, away from edges."""

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter


def is_constant(alpha: np.ndarray) -> bool:
    """Tell whether all of [h, w] has one value."""
    return bool((alpha == alpha[0, 0]).all())


def keep_flat(lr: np.ndarray, sr: np.ndarray) -> np.ndarray:
    """Restore, in upscaled opacity, where a pixel and its eight neighbours are equal.

    No network keeps a constant quite constant: what is opaque would show through a
    little, and an edge would leave ghosts pixels away from it.

    Args:
        lr: Opacity [h, w].
        sr: The same upscaled [h·s, w·s], of the same dtype; it is written to.

    Returns:
        `sr`, with the value of `lr` there.
    """
    (h, w), s = lr.shape, len(sr) // len(lr)
    wide = lr.astype(np.float32)  # of float16 there is no filter
    flat = minimum_filter(wide, 3) == maximum_filter(wide, 3)
    pixels = sr.reshape(h, s, w, s)
    np.copyto(pixels, lr[:, None, :, None], where=flat[:, None, :, None])
    return pixels.reshape(sr.shape)
