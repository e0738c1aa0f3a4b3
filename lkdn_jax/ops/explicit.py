"""Meshes of explicit axes, of which every array says how it is split over them."""

import jax
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def is_explicit(x: Array) -> bool:
    """Return whether an array is on a mesh with an axis that is explicit.

    Not one of a single device, unless the array names its axis all the same.
    """
    sharding = jax.typeof(x).sharding
    mesh, named = sharding.mesh, any(axis is not None for axis in sharding.spec)
    return AxisType.Explicit in mesh.axis_types and (mesh.size > 1 or named)


def sharding_of_sum(x: Array) -> NamedSharding | None:
    """Return how a sum over all images of `x` is split: not at all.

    None where axes are not explicit: XLA decides.
    """
    if not is_explicit(x):
        return None
    return NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec())
