"""Depthwise convolution for GPUs, by Pallas kernels; interpreted elsewhere.

Both kernels read the input once from memory: neighbouring taps find it in the cache or
in registers, and zeros around it are not in memory at all. Arrays are NHWC. Sums are
float32.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lkdn_jax.ops.depthwise_kernels import (
    COLUMNS,
    How,
    bands,
    channels_of,
    forward_kernel,
    gradients_kernel,
)


# Traced once, however many layers.
@jax.jit(static_argnames=("dilation", "pad", "interpret", "activated", "frame"))
def forward(
    x: Array,
    kernel: Array,
    bias: Array,
    *gate: Array,
    dilation: int,
    pad: int,
    interpret: bool,
    activated: bool = False,
    frame: int = 0,
) -> Array:
    """Convolve; images that are on several devices stay there.

    Args:
        x: Input [n, h, w, c], floating point.
        kernel: Kernel [k, k, 1, c].
        bias: Bias [c].
        *gate: At most one array of the shape of the output, to multiply it by.
        dilation: Distance between neighbouring taps, in pixels.
        pad: Width of the zeros on every side, in pixels.
        interpret: Run without a GPU, slowly.
        activated: Whether GELU follows, without a gradient (`ops.gelu`).
        frame: Width of zeros to write around the output, in pixels.

    Returns:
        Output [n, h', w', c] of the dtype of `x`; h' is h + 2·pad − dilation·(k − 1)
        + 2·frame, and w' accordingly.
    """
    how = How(dilation, pad, interpret, activated, frame)
    run = _forward if jax.device_count() == 1 else _forward_by_device
    one_by_one = sequential_vmap(lambda *arrays: run(arrays, how))
    return one_by_one(x, kernel, bias, *gate)


@jax.jit(static_argnames=("k", "dilation", "pad", "interpret"))
def gradients(
    x: Array, dy: Array, k: int, dilation: int, pad: int, interpret: bool
) -> tuple[Array, Array]:
    """Differentiate by the kernel and by the bias.

    Images that are on several devices stay there, and only their sums travel.

    Args:
        x: Input [n, h, w, c], floating point.
        dy: Gradient by the output [n, h', w', c], of the dtype of `x`.
        k: Height and width of the kernel.
        dilation: Distance between neighbouring taps, in pixels.
        pad: Width of the zeros on every side, in pixels.
        interpret: Run without a GPU, slowly.

    Returns:
        Gradient by the kernel [k, k, 1, c] and by the bias [c], float32.
    """
    run = _gradients if jax.device_count() == 1 else _gradients_by_device
    one_by_one = sequential_vmap(lambda x, dy: run(x, dy, k, dilation, pad, interpret))
    sums = one_by_one(x, dy)
    return sums[:-1].reshape(k, k, 1, -1), sums[-1]


def _forward(arrays: tuple[Array, ...], how: How) -> Array:
    x, kernel, bias, *gate = arrays
    n, h, w, c = x.shape
    k, dilation = kernel.shape[0], how.dilation
    around = 2 * (how.pad + how.frame) - dilation * (k - 1)
    h, w = h + around, w + around
    channels = channels_of(c)
    call = pl.pallas_call(
        partial(forward_kernel, k=k, channels=channels, how=how),
        out_shape=jax.ShapeDtypeStruct((n, h, w, c), x.dtype),
        grid=(n * bands(h, dilation), pl.cdiv(w, COLUMNS), pl.cdiv(c, channels)),
        compiler_params=triton.CompilerParams(num_warps=4),
        interpret=how.interpret,
        name="depthwise_forward",
    )
    return call(x, kernel.reshape(k * k, c), bias.reshape(1, c), *gate)


def _gradients(
    x: Array, dy: Array, k: int, dilation: int, pad: int, interpret: bool
) -> Array:
    """Return the sums of all taps, and last that of the bias [k² + 1, c]."""
    n, h, _, c = dy.shape
    channels = channels_of(c)
    programs, blocks = n * bands(h, dilation), pl.cdiv(c, channels)
    sizes = {"k": k, "dilation": dilation, "pad": pad, "channels": channels}
    call = pl.pallas_call(
        partial(gradients_kernel, **sizes, interpret=interpret),
        out_shape=jax.ShapeDtypeStruct(
            (programs, k * k + 1, blocks * channels), jnp.float32
        ),
        grid=(programs, blocks),
        compiler_params=triton.CompilerParams(num_warps=4),
        interpret=interpret,
        name="depthwise_gradients",
    )
    return call(x, dy).sum(0)[:, :c]


def _split_forward(how: How, mesh: Mesh, shapes: Any, _: Any) -> Any:
    (x, _, _, *gate) = shapes[0]
    images, whole, _ = _shardings(mesh, x)
    arguments = (images, whole, whole, *(images for _ in gate))
    return mesh, partial(_forward, how=how), images, (arguments,)


def _forward_rule(how: How, mesh: Mesh, operands: Any, _: Any) -> str:
    del how, mesh
    return "n a b c, i j k c, c" + ", n h w c" * (len(operands) - 3) + " -> n h w c"


def _split_gradients(
    k: int, dilation: int, pad: int, interpret: bool, mesh: Mesh, shapes: Any, _: Any
) -> Any:
    images, whole, axis = _shardings(mesh, shapes[0])

    def gradients(x: Array, dy: Array) -> Array:
        sums = _gradients(x, dy, k, dilation, pad, interpret)
        return sums if axis is None else lax.psum(sums, axis)

    return mesh, gradients, whole, (images, images)


def _shardings(mesh: Mesh, x: Any) -> tuple[NamedSharding, NamedSharding, Any]:
    axis = next(iter(getattr(x.sharding, "spec", ())), None)
    names = (axis,) if isinstance(axis, str) else axis or ()
    # Split unevenly, images would be filled up with anything, and that summed, too.
    if x.shape[0] % math.prod(mesh.shape[name] for name in names):
        axis = None
    of_images, whole = PartitionSpec(axis), PartitionSpec()
    return NamedSharding(mesh, of_images), NamedSharding(mesh, whole), axis


# XLA cannot split a kernel that is not its own: it would gather all images.
_forward_by_device = custom_partitioning(_forward, static_argnums=(1,))
_forward_by_device.def_partition(_split_forward, sharding_rule=_forward_rule)
_gradients_by_device = custom_partitioning(_gradients, static_argnums=(2, 3, 4, 5))
_gradients_by_device.def_partition(
    _split_gradients, sharding_rule="n a b c, n h w c -> t c"
)
