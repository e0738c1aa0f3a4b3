"""Depthwise convolution: one function, several implementations, one choice.

XLA's grouped convolution is slow: on CPUs the same sum written as k² shifted
multiply-adds runs about thirty times faster. Arrays are NHWC.
"""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax

from lkdn_jax.ops import depthwise_pallas
from lkdn_jax.ops.dtypes import at_least_float32
from lkdn_jax.ops.explicit import is_explicit
from lkdn_jax.ops.order import store
from lkdn_jax.ops.varying import vary_alike, varying

Implementation = Literal["lax", "shift", "pallas"]
Padding = Literal["SAME", "VALID"]
Way = Implementation | None
_GROUPS = 16


def depthwise_conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    dilation: int = 1,
    padding: Padding = "SAME",
    implementation: Way = None,
) -> Array:
    """Convolve every channel with its own k×k kernel.

    Args:
        x: Input [n, h, w, c], floating point.
        kernel: Kernel [k, k, 1, c] with k odd, of the dtype of `x` or wider; of a wider
            one, where a gradient is taken, the numbers are rounded to that of `x`.
        bias: Bias [c], likewise, or None.
        dilation: Distance between neighbouring taps, in pixels, at least 1.
        padding: `SAME` (zeros, same size) or `VALID` (none).
        implementation: `lax` (one grouped convolution), `shift` (k² shifted
            multiply-adds) or `pallas` (kernels for CUDA, interpreted elsewhere; under
            `vmap` one example after another). None takes `pallas` on CUDA, from Ampere
            on: it loads a number once for several taps, and takes one pass for the
            gradient by the kernel. Elsewhere, and of float64, None takes `shift`, which
            XLA fuses with what is around it (docs/performance.md).

    Returns:
        Output of the dtype of `x`, summed in float32 at least (but `lax` rounds kernel
        and bias first, and before it adds the bias): a cross-correlation, as in
        PyTorch. [n, h, w, c] if `SAME`, less dilation·(k − 1) if `VALID`.

    Raises:
        ValueError: A shape or argument is none of the above.
    """
    if x.ndim != 4:
        raise ValueError(f"x of shape {x.shape}: give features [n, h, w, c]")
    k, channels = (*kernel.shape, 0)[0], x.shape[-1]
    if kernel.shape != (k, k, 1, channels) or k % 2 == 0:
        raise ValueError(
            f"kernel of shape {kernel.shape}: a depthwise kernel for {channels} "
            f"channels is [k, k, 1, {channels}] with k odd"
        )
    which = "lax" if implementation is None else implementation
    for value, known in ((which, Implementation), (padding, Padding)):
        if value not in get_args(known):
            raise ValueError(f"{value!r}: use one of {', '.join(get_args(known))}")
    if not isinstance(dilation, Integral) or dilation < 1:
        raise ValueError(f"dilation {dilation}: use 1 or more, a whole number")
    extent = dilation * (k - 1) + 1
    sizes = [size for size in x.shape[1:3] if isinstance(size, int)]  # no symbols
    if padding == "VALID" and any(size < extent for size in sizes):
        raise ValueError(
            f"x of shape {x.shape}: without padding a map of {extent}×{extent} pixels "
            "is the least that the taps fit in"
        )
    if bias is None:
        bias = jnp.zeros(channels, x.dtype)
    if bias.shape != (channels,):
        raise ValueError(f"bias of shape {bias.shape}: give [{channels}], or None")
    pad = dilation * (k // 2) if padding == "SAME" else 0
    x, kernel, bias = vary_alike((x, kernel, bias))
    if implementation == "lax":
        kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
        return _lax(x, kernel, dilation, pad) + bias.reshape(1, 1, 1, -1)
    return _conv(x, kernel, bias, dilation, pad, implementation)


def _lax(x: Array, kernel: Array, dilation: int, pad: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _conv(
    x: Array, kernel: Array, bias: Array, dilation: int, pad: int, way: Way
) -> Array:
    forward = partial(depthwise_pallas.forward, dilation=dilation, pad=pad)
    shift = partial(_shift, dilation=dilation, pad=pad)
    return choose(way, forward, shift, x, kernel, bias)


def _conv_forward(
    x: Array, kernel: Array, bias: Array, dilation: int, pad: int, way: Way
) -> tuple[Array, tuple[Array, Array, Array]]:
    # Rounded: XLA on GPU cuts a vector of all parameters into arrays one by one, but
    # converts many in one kernel. Without a gradient a conversion is a kernel too many.
    narrow = kernel.astype(x.dtype), bias.astype(x.dtype)
    return _conv(x, *narrow, dilation, pad, way), (x, kernel, bias)


def _conv_backward(
    dilation: int, pad: int, way: Way, residuals: tuple[Array, Array, Array], dy: Array
) -> tuple[Array, Array, Array]:
    # Differentiated tap by tap, each of the k² shifts would become a padded array.
    x, kernel, bias = residuals
    # The barrier keeps XLA from storing dy in float32 too.
    dy = lax.optimization_barrier(dy)
    dx = _input_gradient(dy, kernel.astype(dy.dtype), dilation, pad, way)
    sums: Any = _gradients(x, dy, kernel.shape[0], dilation, pad, way)
    dkernel, dbias = sums
    return dx, dkernel.astype(kernel.dtype), dbias.astype(bias.dtype)


_conv.defvjp(_conv_forward, _conv_backward)


def _input_gradient(
    dy: Array, kernel: Array, dilation: int, pad: int, way: Way
) -> Array:
    around = dilation * (kernel.shape[0] - 1) - pad
    no_bias = jnp.zeros(kernel.shape[-1], dy.dtype)
    return _conv(dy, kernel[::-1, ::-1], no_bias, dilation, around, way)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _gradients(
    x: Array, dy: Array, k: int, dilation: int, pad: int, way: Way
) -> tuple[Array, Array]:
    """Differentiate by kernel [k, k, 1, c] and bias [c]."""
    gradients = partial(depthwise_pallas.gradients, k=k, dilation=dilation, pad=pad)
    shift = partial(_shift_gradients, k=k, dilation=dilation, pad=pad)
    return choose(way, gradients, shift, x, dy)


def _gradients_forward(
    x: Array, dy: Array, k: int, dilation: int, pad: int, way: Way
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    return _gradients(x, dy, k, dilation, pad, way), (x, dy)


def _gradients_backward(
    k: int,
    dilation: int,
    pad: int,
    way: Way,
    residuals: tuple[Array, Array],
    slopes: tuple[Array, Array],
) -> tuple[Array, Array]:
    # They are linear in both, so their gradients are convolutions again.
    del k
    x, dy = residuals
    kernel, bias = slopes[0].astype(x.dtype), slopes[1].astype(x.dtype)
    dx = _input_gradient(dy, kernel, dilation, pad, way)
    return dx, _conv(x, kernel, bias, dilation, pad, way)


_gradients.defvjp(_gradients_forward, _gradients_backward)


def choose(
    way: Way,
    pallas: Callable[..., Any],
    other: Callable[..., Any],
    *arrays: Array,
) -> Any:
    """Choose for the platform that the program is made for.

    Args:
        way: The implementation that was asked for, None for the fastest.
        pallas: A kernel for CUDA, with an argument `interpret`.
        other: The same otherwise, for other platforms, older cards, float64, sizes
            that are symbols, no images, within a checked `jax.shard_map`, and on a
            mesh of explicit axes.
        *arrays: Arguments of either.

    Returns:
        What the chosen one returns.
    """
    if way in ("lax", "shift") or (way is None and not _pallas_can(*arrays)):
        return other(*arrays)
    default = other if way is None else partial(pallas, interpret=True)
    cuda = partial(pallas, interpret=False)
    return lax.platform_dependent(*arrays, cuda=cuda, default=default)


def _pallas_can(x: Array, *others: Array) -> bool:
    exact = x.dtype == jnp.float64  # Triton's sums are float32
    # Of `jax.export`, which has names for sizes: a kernel is made for numbers.
    symbolic = not all(isinstance(size, int) for size in x.shape)
    if exact or symbolic or 0 in x.shape:
        return False
    # In a checked `jax.shard_map` a Pallas kernel must say how its output varies, and
    # on a mesh of explicit axes how it is split.
    split = any(varying(array) or is_explicit(array) for array in (x, *others))
    return not (split or _has_old_gpu())


def _has_old_gpu() -> bool:
    # XLA takes Triton only from compute capability 8.0, Ampere, on. Without a GPU here
    # the program is for another machine.
    versions = [getattr(gpu, "compute_capability", "") for gpu in jax.local_devices()]
    return any(v[:1].isdigit() and float(v) < 8 for v in versions)


# Traced once for all layers of a shape.
@jax.jit(static_argnames=("dilation", "pad"), inline=True)
def _shift(x: Array, kernel: Array, bias: Array, dilation: int, pad: int) -> Array:
    x = _pad(x, pad)
    _, h, w, c = x.shape
    k = kernel.shape[0]
    h, w = h - dilation * (k - 1), w - dilation * (k - 1)
    # Sums are float32 at least: 25 roundings to bfloat16 would cost 0.02 dB.
    wide = at_least_float32(x.dtype)
    out = bias.astype(wide).reshape(1, 1, 1, c)
    for i in range(k):
        taps = []
        for j in range(k):
            top, left = i * dilation, j * dilation
            part = x[:, top : top + h, left : left + w].astype(wide)
            taps.append(part * kernel[i : i + 1, j : j + 1].astype(wide))
        # Row by row: in one chain of k² additions each would wait for the one before.
        out = out + sum(taps[1:], taps[0])
    return out.astype(x.dtype)


@jax.jit(static_argnames=("k", "dilation", "pad"), inline=True)
def _shift_gradients(
    x: Array, dy: Array, k: int, dilation: int, pad: int
) -> tuple[Array, Array]:
    n, h, w, c = dy.shape
    wide = at_least_float32(dy.dtype)
    dbias = dy.sum((0, 1, 2), dtype=wide)
    x = _pad(x, pad)
    # Sums of slices first: XLA on CPU makes one fast loop of them, and a slow one of a
    # product under a reduction. The loop over taps keeps the program small.
    rows = -(-h // max(1, min(h, _GROUPS)))
    missing = ((0, 0), (0, -h % rows), (0, 0), (0, 0))
    x, dy = (jnp.pad(a, missing) if h % rows else a for a in (x, dy))

    def tap(_: None, index: Array) -> tuple[None, Array]:
        top, left = index // k * dilation, index % k * dilation
        total = jnp.zeros((n, rows, w, c), wide)
        for start in range(0, dy.shape[1], rows):
            part = lax.dynamic_slice(x, (0, top + start, left, 0), (n, rows, w, c))
            total += part.astype(wide) * dy[:, start : start + rows].astype(wide)
        return None, total

    _, sums = lax.scan(tap, None, jnp.arange(k * k))
    return sums.sum((1, 2, 3)).reshape(k, k, 1, c), dbias


def _pad(x: Array, pad: int) -> Array:
    if not pad:
        return x
    return store(jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))))


def forget_traces() -> None:
    """Forget the shapes that were traced; see `models.lkdn.forget_traces`."""
    kernels = depthwise_pallas.forward, depthwise_pallas.gradients
    traced: tuple[Any, ...] = (_shift, _shift_gradients, *kernels)
    for function in traced:
        function.clear_cache()
