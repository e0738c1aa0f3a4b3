"""1×1 convolution: the product of every pixel with a matrix. Arrays are NHWC."""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from lkdn_jax.ops.dtypes import at_least_float32
from lkdn_jax.ops.explicit import sharding_of_sum
from lkdn_jax.ops.varying import vary_alike

_GROUPS = 256  # sums to begin with on a GPU: enough to fill one


def pointwise(x: Array, kernel: Array) -> Array:
    """Multiply every pixel by a matrix.

    As a product of two dimensions: of more, XLA on CPU transposes a whole map, and
    computes it anew to do so, for the gradient of the kernel.

    Args:
        x: Features [n, h, w, c], floating point.
        kernel: Matrix [c, d] of that dtype.

    Returns:
        Features [n, h, w, d] of that dtype.
    """
    return _pointwise(*vary_alike((x, kernel)))


@jax.custom_vjp
def _pointwise(x: Array, kernel: Array) -> Array:
    # The barriers, here and below: XLA on GPU merges two products that share an operand
    # into one, then copies whole maps to part its result and the gradients again.
    rows = lax.platform_dependent(
        x,
        kernel,
        cuda=lambda *operands: _product(*lax.optimization_barrier(operands)),
        default=_product,
    )
    return rows.reshape(*x.shape[:-1], kernel.shape[1])


def _product(x: Array, kernel: Array) -> Array:
    return _rows(x) @ kernel


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    x, kernel = lax.optimization_barrier((x, kernel))
    return _pointwise(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    x, dy = lax.optimization_barrier((x, dy))
    dkernel = lax.platform_dependent(
        x, dy, cuda=kernel_gradient_in_groups, default=kernel_gradient
    )
    return _pointwise(dy, kernel.T), dkernel


_pointwise.defvjp(_forward, _backward)


def kernel_gradient(x: Array, dy: Array) -> Array:
    """Differentiate by the kernel: [n, h, w, c] and [n, h, w, d] give [c, d]."""
    return jnp.matmul(_rows(x).T, _rows(dy), out_sharding=sharding_of_sum(x))


def kernel_gradient_in_groups(x: Array, dy: Array) -> Array:
    """Differentiate by the kernel as `kernel_gradient` does, image by image.

    The pixels of an image are in equal groups, too, for about `_GROUPS` in all. XLA on
    GPU splits so long a sum itself, but pads both maps where the number of pixels is
    not to its liking; where they are too few or too odd for groups, that is left to it.
    """
    n, h, w, _ = x.shape
    groups = math.gcd(_GROUPS // math.gcd(_GROUPS, n), h * w)

    def in_groups(maps: Array) -> Array:
        # In two steps: of explicit axes jax reshapes but one at a time.
        pixels = maps.reshape(n, h * w, maps.shape[-1])
        return pixels.reshape(n, groups, h * w // groups, maps.shape[-1])

    sums = lax.dot_general(
        in_groups(x),
        in_groups(dy),
        dimension_numbers=(((2,), (2,)), ((0, 1), (0, 1))),
        preferred_element_type=at_least_float32(x.dtype),
    )
    return sums.sum((0, 1)).astype(x.dtype)


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
