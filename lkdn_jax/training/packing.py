"""Trees of parameters as vectors, for loops over training steps.

An optimizer treats every number alone. For 250 arrays a GPU runs 250 kernels, and a
loop over steps copies as many more; for one vector it runs one (docs/performance.md).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


@dataclass(frozen=True, eq=False)  # hashed by identity, for `jax.jit`
class Packing:
    """How the trees of a network's parameters become vectors, and trees again.

    Attributes:
        shapes: The parameters, or a `jax.ShapeDtypeStruct` for each; all of one dtype.
    """

    shapes: Any

    def pack(self, tree: Any) -> Any:
        """Turn every tree of the parameters' structure within a tree into a vector.

        Args:
            tree: Such as a `TrainState`.

        Returns:
            The tree, with vectors [number of parameters] in place of those trees.
        """

        def is_params(part: Any) -> bool:
            return jax.tree.structure(part) == jax.tree.structure(self.shapes)

        def vector(part: Any) -> Any:
            if not is_params(part):
                return part
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(part)])

        return jax.tree.map(vector, tree, is_leaf=is_params)

    def unpack(self, packed: Any) -> Any:
        """Undo `pack`."""
        length = sum(leaf.size for leaf in jax.tree.leaves(self.shapes))
        params = jax.jit(self.params)  # compiled once for all vectors
        return jax.tree.map(
            lambda leaf: params(leaf) if leaf.shape == (length,) else leaf, packed
        )

    def params(self, vector: Array) -> Any:
        """Return the tree that a vector stands for; its gradient is a vector again."""
        leaves, structure = jax.tree.flatten(self.shapes)
        parts = lax.split(vector, [leaf.size for leaf in leaves])
        arrays = [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, arrays)
