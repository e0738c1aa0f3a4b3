"""Devices: a mesh of all of them, the batch split over it, the state on each."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """Return a mesh of all devices of all hosts, with the one axis `batch`."""
    # Auto axes: the explicit ones, the default, cannot express the pixel shuffle.
    return jax.make_mesh((jax.device_count(),), ("batch",), (AxisType.Auto,))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Put a tree of arrays, equal on all hosts, on every device.

    Args:
        mesh: As made by `make_mesh`.
        tree: Arrays on the host, or on one local device.

    Returns:
        The tree as global arrays.
    """
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)),
        tree,
    )


def replicated_shapes(mesh: Mesh, shapes: Any) -> Any:
    """Say of a tree of shapes that its arrays are on every device.

    Args:
        mesh: As made by `make_mesh`.
        shapes: A `jax.ShapeDtypeStruct` for each array.

    Returns:
        The tree with shardings.
    """
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda shape: shape.update(sharding=sharding), shapes)


def shard_batch(mesh: Mesh, tree: Any) -> Any:
    """Split batches over the devices.

    Args:
        mesh: As made by `make_mesh`.
        tree: Arrays [steps, b, …] with the rows of this host.

    Returns:
        The tree as global arrays, split along the second axis.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, "batch"))
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree
    )
