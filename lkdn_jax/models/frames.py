"""What lies around features: frames and masks of zeros.

A mask `valid` [n, h, w, 1], bool, is true inside the image (or None: all valid). What
lies outside is set to zero before it is looked at, so an image padded to a larger array
gives, inside, the output it would give alone.
"""

import jax.numpy as jnp
from jax import Array


def mask(x: Array, valid: Array | None) -> Array:
    """Set what lies outside the image to zero.

    Args:
        x: Features [n, h, w, c].
        valid: Mask [n, h, w, 1], bool, true inside; None leaves `x` as it is.

    Returns:
        Features [n, h, w, c].
    """
    return x if valid is None else jnp.where(valid, x, jnp.zeros((), x.dtype))


def frame(x: Array, valid: Array | None = None) -> Array:
    """Put one pixel of zeros around features.

    Whatever computes them can write them framed at once; a 1×1 convolution without a
    bias keeps the frame, so the depthwise convolution after it needs no padding.

    Args:
        x: Features [n, h, w, c].
        valid: Mask [n, h, w, 1], bool, true inside; outside becomes zero too.

    Returns:
        Features [n, h + 2, w + 2, c].
    """
    return jnp.pad(mask(x, valid), ((0, 0), (1, 1), (1, 1), (0, 0)))


def unframe(x: Array) -> Array:
    """Take the frame off: [n, h + 2, w + 2, c] to [n, h, w, c]."""
    return x[:, 1:-1, 1:-1]
