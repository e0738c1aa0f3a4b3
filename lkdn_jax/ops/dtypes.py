"""In what dtype to compute."""

import jax.numpy as jnp
from jax.typing import DTypeLike


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """Return a dtype, or float32 in its place if it has fewer bits.

    Args:
        dtype: Floating point.

    Returns:
        Float32 or float64.
    """
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)
