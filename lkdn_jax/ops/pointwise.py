"""1×1 convolution: the product of every pixel with a matrix. Arrays are NHWC."""

import math

import jax
from jax import Array, lax

from lkdn_jax.ops.dtypes import at_least_float32

_GROUPS = 256  # sums to begin with on a GPU: enough to fill one


@jax.custom_vjp
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
    return (_rows(x) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    # The barriers, here and below: XLA on GPU makes one product of two that share a
    # factor. To have it and its gradients in two it must copy whole maps.
    x, kernel = lax.optimization_barrier((x, kernel))
    return pointwise(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    x, dy = lax.optimization_barrier((x, dy))
    dkernel = lax.platform_dependent(
        x, dy, cuda=kernel_gradient_in_groups, default=kernel_gradient
    )
    return pointwise(dy, kernel.T), dkernel


pointwise.defvjp(_forward, _backward)


def kernel_gradient(x: Array, dy: Array) -> Array:
    """Differentiate by the kernel: [n, h, w, c] and [n, h, w, d] give [c, d]."""
    return _rows(x).T @ _rows(dy)


def kernel_gradient_in_groups(x: Array, dy: Array) -> Array:
    """Differentiate by the kernel as `kernel_gradient` does, pixels in equal groups.

    XLA on GPU splits so long a sum, too, but pads both maps where the number of pixels
    is not to its liking.
    """
    groups = math.gcd(_GROUPS, math.prod(x.shape[:-1]))
    sums = lax.dot_general(
        x.reshape(groups, -1, x.shape[-1]),
        dy.reshape(groups, -1, dy.shape[-1]),
        dimension_numbers=(((1,), (1,)), ((0,), (0,))),
        preferred_element_type=at_least_float32(x.dtype),
    )
    return sums.sum(0).astype(x.dtype)


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
