"""Which axes of a checked `jax.shard_map` an array varies over."""

from typing import TypeVar

import jax
from jax import Array, lax

Arrays = TypeVar("Arrays", bound=tuple[Array, ...])


def varying(x: Array) -> frozenset[str]:
    """Return the axes that an array varies over; none outside of `jax.shard_map`."""
    axes = getattr(jax.typeof(x), "manual_axis_type", None)
    return frozenset(getattr(axes, "varying", ()))


def vary_alike(arrays: Arrays) -> Arrays:
    """Let all arrays vary over the axes that any of them varies over.

    So a gradient by what does not vary, as parameters, is the sum over these axes. A
    `custom_vjp` needs that: its gradients must vary as its arguments do.

    Args:
        arrays: Arrays of any shapes.

    Returns:
        The same arrays.
    """
    axes = frozenset[str]().union(*map(varying, arrays))

    def vary(x: Array) -> Array:
        missing = tuple(axes - varying(x))
        return lax.pcast(x, missing, to="varying") if missing else x

    alike: Arrays = tuple(map(vary, arrays))  # pyright: ignore[reportAssignmentType]
    return alike
