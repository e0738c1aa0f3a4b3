"""Two maps side by side, written so by what computes them. Arrays are NHWC."""

import jax.numpy as jnp
from jax import Array, lax

from lkdn_jax.ops.gelu import gelu
from lkdn_jax.ops.pointwise import pointwise


def join(x: Array, y: Array, channels: int) -> Array:
    """Put the first channels of two maps side by side.

    A sum of padded maps, since XLA on CPU fuses that with what makes the maps and what
    reads the sum. What is concatenated it copies, map by map (jaxlib 0.12; 0.11 not).

    Args:
        x: Features [n, h, w, c].
        y: Features of that shape and dtype.
        channels: How many of each, at most c.

    Returns:
        Features [n, h, w, 2·channels].
    """

    def padded(x: Array, before: int, after: int) -> Array:
        return jnp.pad(x[..., :channels], ((0, 0), (0, 0), (0, 0), (before, after)))

    return padded(x, 0, channels) + padded(y, channels, 0)


def activated_product(x: Array, y: Array, kernel: Array, bias: Array) -> Array:
    """Apply GELU to two maps, multiply both by a matrix, and add a bias.

    On CUDA as one product: GELU writes its maps side by side, and no sum of two
    products takes a pass. Elsewhere as two, which are faster on CPU than one or four.

    Args:
        x: Features [n, h, w, c], floating point.
        y: Features of that shape and dtype.
        kernel: Matrix [2·c, d] of that dtype.
        bias: Bias [d] of that dtype.

    Returns:
        Features [n, h, w, d] of that dtype.
    """
    arrays = x, y, kernel, bias
    return lax.platform_dependent(*arrays, cuda=as_one, default=as_two)


def as_one(x: Array, y: Array, kernel: Array, bias: Array) -> Array:
    """Compute `activated_product` as one product."""
    both = join(x, y, x.shape[-1])
    return pointwise(gelu(both), kernel) + bias.reshape(1, 1, 1, -1)


def as_two(x: Array, y: Array, kernel: Array, bias: Array) -> Array:
    """Compute `activated_product` as the sum of two."""
    c = x.shape[-1]
    first = pointwise(gelu(x), kernel[:c]) + bias.reshape(1, 1, 1, -1)
    return first + pointwise(gelu(y), kernel[c:])
