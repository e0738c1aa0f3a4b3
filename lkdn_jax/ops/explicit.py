"""Meshes of explicit axes, of which every array says how it is split over them."""

import jax
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def is_explicit(x: Array) -> bool:
    """Return whether an array is on a mesh of which any axis is explicit."""
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def sharding_of_sum(x: Array) -> NamedSharding | None:
    """Return how a sum over all images of `x` is split: not at all.

    None where axes are not explicit: XLA decides.
    """
    if not is_explicit(x):
        return None
    return NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec())
