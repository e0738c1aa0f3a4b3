"""GELU, exact to the rounding of float32."""

import math

import jax
import jax.numpy as jnp
from jax import Array

# Φ(x) = ½ + x·P(x²) for |x| ≤ _END, and 0 or 1 beyond. P in powers of 2x²/_END² − 1:
# weighted least squares at 12,000 points in float64, with weights raised until the
# error of x·Φ(x) was level (`tests/ops/test_gelu.py` checks what it is).
_END = 4.0 * math.sqrt(2)
_P = (
    0.12499208,
    -0.062429123,
    0.04655425,
    -0.038081646,
    0.031892158,
    -0.026415782,
    0.021186769,
    -0.016215371,
    0.011632833,
    -0.0078060683,
    0.005188533,
    -0.0033493927,
    0.0016084025,
    -0.00054175017,
    0.00046967337,
    -0.00043778442,
    0.00014056427,
)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """Multiply x by the normal distribution function Φ(x), as PyTorch's GELU does.

    Without a gradient it is a polynomial of degree 16 in x², which takes half the time
    of XLA's error function on CPU; its largest error is 6e-7 (PyTorch's is 1.1e-6).
    With a gradient, and for float64, it goes through the error function: where x is
    very negative the polynomial keeps few digits, and Adan magnifies tiny gradients.

    Args:
        x: Features of any shape, floating point; computed in float32 at least.

    Returns:
        Features of the shape and dtype of `x`.
    """
    if x.dtype == jnp.float64:
        return _by_erf(x)
    wide = x.astype(jnp.float32)
    low = jnp.maximum(wide, -_END)
    inside = jnp.minimum(low, _END)
    t = inside * inside * (2 / _END**2) - 1
    p = jnp.full((), _P[-1], jnp.float32)
    for coefficient in _P[-2::-1]:
        p = p * t + coefficient
    return (low * (inside * p + 0.5)).astype(x.dtype)


def _by_erf(x: Array) -> Array:
    wide = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
    return jax.nn.gelu(wide, approximate=False).astype(x.dtype)


def _forward(x: Array) -> tuple[Array, Array]:
    return _by_erf(x), x


def _backward(x: Array, dy: Array) -> tuple[Array]:
    _, vjp = jax.vjp(_by_erf, x)
    return vjp(dy)


gelu.defvjp(_forward, _backward)
