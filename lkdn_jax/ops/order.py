"""Sums that XLA on CPU takes when they are written, not when they are read.

XLA on CPU drops `lax.optimization_barrier` before it fuses and schedules. A running sum
then becomes one kernel at the end, and all its terms stay in memory until there.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_vjp
def store(x: Array) -> Array:
    """Return `x`, computed once and stored rather than anew by whatever reads it.

    Args:
        x: Features [n, h, w, c].

    Returns:
        `x`. The detour over two dimensions keeps XLA on CPU, which drops the barrier
        early, from moving slices through a padding. Its gradient passes as it is,
        to be fused with what makes it.
    """
    return lax.optimization_barrier(x.reshape(-1, x.shape[-1])).reshape(x.shape)


store.defvjp(lambda x: (store(x), None), lambda _, dy: (dy,))


def add_now(total: Array, term: Array) -> Array:
    """Add two arrays and store the sum.

    Args:
        total: Array of any shape and dtype.
        term: Array of the same shape and dtype.

    Returns:
        `total + term`. On CPU it is written as a reduction over a new axis: XLA fuses
        what makes the terms into it, but not it into what reads the sum.
    """
    return lax.platform_dependent(
        total,
        term,
        cpu=lambda total, term: lax.optimization_barrier(
            jnp.stack([total, term]).sum(0)
        ),
        default=lambda total, term: total + term,
    )


def after(x: Array, dependency: Array) -> Array:
    """Return `x`, to be computed after `dependency`.

    Args:
        x: Features [n, h, w, c].
        dependency: Features of as many images, [n, …, …, …]. Where the first number of
            an image is NaN, so is the result for that image on CPU.

    Returns:
        `x`. On CPU with a zero added that needs the dependency and that XLA cannot
        foresee; it is fused into what makes `x` and takes no time. A number of each
        image, so that images on several devices need not wait for each other.
    """

    def tied(x: Array, dependency: Array) -> Array:
        first = lax.stop_gradient(dependency)[:, :1, :1, :1]
        return x + jnp.minimum(jnp.abs(first), 0).astype(x.dtype)

    return lax.platform_dependent(x, dependency, cpu=tied, default=lambda x, _: x)
