"""The eight flips and transposes of an image, which a self-ensemble averages over."""

import numpy as np

FLIPS = range(8)


def flip(image: np.ndarray, number: int) -> np.ndarray:
    """Flip an image.

    Args:
        image: [h, w, c].
        number: Of `FLIPS`: its bits are upside down, left to right, transposed.

    Returns:
        [h, w, c], or [w, h, c] if transposed; contiguous.
    """
    image = image[::-1] if number & 1 else image
    image = image[:, ::-1] if number & 2 else image
    return np.ascontiguousarray(image.swapaxes(0, 1) if number & 4 else image)


def unflip(image: np.ndarray, number: int) -> np.ndarray:
    """Undo `flip`; a view."""
    image = image.swapaxes(0, 1) if number & 4 else image
    image = image[:, ::-1] if number & 2 else image
    return image[::-1] if number & 1 else image
