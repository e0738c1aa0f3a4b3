"""A depthwise convolution and what follows it: on CUDA one kernel. Arrays are NHWC.

XLA on a GPU puts what follows into kernels of its own, but not into those of Pallas.
Where a gradient is taken nothing is fused: it needs what is between.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from lkdn_jax.ops import depthwise_pallas
from lkdn_jax.ops.depthwise import Way, choose, depthwise_conv
from lkdn_jax.ops.gelu import gelu
from lkdn_jax.ops.order import store
from lkdn_jax.ops.varying import vary_alike


def framed_gelu(
    x: Array,
    kernel: Array,
    bias: Array,
    *,
    implementation: Way = None,
) -> Array:
    """Convolve framed features, apply GELU, and frame what comes out.

    Args:
        x: Features with one pixel of zeros around them [n, h + 2, w + 2, c].
        kernel: Kernel [3, 3, 1, c] of the dtype of `x` or wider.
        bias: Bias [c], likewise.
        implementation: As of `depthwise_conv`.

    Returns:
        Features [n, h + 2, w + 2, c] of the dtype of `x`, stored.

    Raises:
        ValueError: A kernel of another size, or as for `depthwise_conv`.
    """
    if kernel.shape[:2] != (3, 3):
        raise ValueError(f"kernel of shape {kernel.shape}: here it is [3, 3, 1, c]")

    def function(way: Way, x: Array, kernel: Array, bias: Array) -> Array:
        y = depthwise_conv(x, kernel, bias, padding="VALID", implementation=way)
        y = gelu(y)
        return store(jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0))))

    pallas = partial(
        depthwise_pallas.forward, dilation=1, pad=0, activated=True, frame=1
    )
    return _without_gradient(implementation, pallas, function, x, kernel, bias)


def gated(
    gate: Array,
    x: Array,
    kernel: Array,
    bias: Array,
    *,
    dilation: int = 1,
    implementation: Way = None,
) -> Array:
    """Multiply features by a depthwise convolution of others.

    Args:
        gate: Features [n, h, w, c].
        x: Features of that shape and dtype.
        kernel: Kernel [k, k, 1, c] with k odd, of that dtype or wider.
        bias: Bias [c], likewise.
        dilation: Distance between neighbouring taps, in pixels.
        implementation: As of `depthwise_conv`.

    Returns:
        Features of that shape and dtype.

    Raises:
        ValueError: A gate of another shape or dtype, or as for `depthwise_conv`.
    """
    if (gate.shape, gate.dtype) != (x.shape, x.dtype):
        raise ValueError(
            f"a gate of shape {gate.shape}, {gate.dtype}: give that of x, {x.shape}, "
            f"{x.dtype}"
        )

    def function(way: Way, x: Array, kernel: Array, bias: Array, gate: Array) -> Array:
        conv = partial(depthwise_conv, dilation=dilation, implementation=way)
        return gate * conv(x, kernel, bias)

    pad = dilation * ((*kernel.shape, 0)[0] // 2)
    pallas = partial(depthwise_pallas.forward, dilation=dilation, pad=pad)
    return _without_gradient(implementation, pallas, function, x, kernel, bias, gate)


def _without_gradient(
    way: Way,
    pallas: Callable[..., Array],
    function: Callable[..., Array],
    *arrays: Array,
) -> Array:
    """Compute a function, by `pallas` where that is chosen and no gradient is taken."""
    if way is not None:
        jax.eval_shape(partial(function, way), *arrays)  # checks what it is given
    # Where `pallas` is not chosen, neither is it for a part.
    other = partial(function, way or "shift")

    @jax.custom_vjp
    def run(*arrays: Array) -> Array:
        return choose(way, pallas, other, *arrays)

    arrays = vary_alike(arrays)
    run.defvjp(
        partial(jax.vjp, partial(function, way)), lambda pullback, dy: pullback(dy)
    )
    return run(*arrays)
