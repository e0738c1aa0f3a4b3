"""How kernels and biases start: as PyTorch's defaults do, U(−1/√fan_in, 1/√fan_in).

The published networks were trained from there.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

Initializer = Callable[..., Array]

_SHORTEST_DRAW = 4096  # numbers


def uniform_fan_in(fan_in: int) -> Initializer:
    """Return an initializer for U(−1/√fan_in, 1/√fan_in), PyTorch's default.

    Args:
        fan_in: Inputs of one output: kernel height × width × channels in.

    Returns:
        A function of a key, a shape and a dtype, as Flax takes it.
    """

    def init(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        bound = fan_in**-0.5
        # Drawn flat and longer than needed: XLA on CPU takes up to 20 times as long to
        # compile a draw of four dimensions, and would for every size. The numbers are
        # the same with jax's default, `jax_threefry_partitionable`.
        length = max(_SHORTEST_DRAW, 1 << (int(math.prod(shape)) - 1).bit_length())
        return _cut(jax.random.uniform(key, (length,), dtype, -bound, bound), shape)

    return init


@jax.jit(static_argnames="shape")  # one program of what would be two
def _cut(flat: Array, shape: tuple[int, ...]) -> Array:
    return flat[: math.prod(shape)].reshape(shape)
