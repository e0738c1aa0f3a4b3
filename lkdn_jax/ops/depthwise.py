"""Depthwise convolution: one function, several implementations, one choice.

XLA's grouped convolution is slow: on CPUs the same sum written as k² shifted
multiply-adds runs about thirty times faster. Arrays are NHWC.
"""

from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax

from lkdn_jax.ops import depthwise_pallas
from lkdn_jax.ops.order import store

Implementation = Literal["lax", "shift", "pallas"]
Padding = Literal["SAME", "VALID"]
_GROUPS = 16


def depthwise_conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    dilation: int = 1,
    padding: Padding = "SAME",
    implementation: Implementation | None = None,
) -> Array:
    """Convolve every channel with its own k×k kernel.

    Args:
        x: Input [n, h, w, c], floating point.
        kernel: Kernel [k, k, 1, c] with k odd, of the dtype of `x`.
        bias: Bias [c] of the dtype of `x`, or None.
        dilation: Distance between neighbouring taps, in pixels, at least 1.
        padding: `SAME` (zeros, same size) or `VALID` (none).
        implementation: `lax` (one grouped convolution), `shift` (k² shifted
            multiply-adds) or `pallas` (kernels for GPUs, interpreted elsewhere). None
            takes `shift`, which XLA fuses with what is around it; but on CUDA, from
            Ampere on, `pallas` for the gradient by the kernel: one pass, where `shift`
            is a loop over the taps (docs/performance.md).

    Returns:
        Output of the dtype of `x`, summed in float32 at least: a cross-correlation, as
        in PyTorch. [n, h, w, c] if `SAME`, less dilation·(k − 1) if `VALID`.

    Raises:
        ValueError: A shape or argument is none of the above.
    """
    k, channels = kernel.shape[0], x.shape[-1]
    if kernel.shape != (k, k, 1, channels) or k % 2 == 0:
        raise ValueError(
            f"kernel of shape {kernel.shape}: a depthwise kernel for {channels} "
            f"channels is [k, k, 1, {channels}] with k odd"
        )
    for value, known in ((implementation or "lax", Implementation), (padding, Padding)):
        if value not in get_args(known):
            raise ValueError(f"{value!r}: use one of {', '.join(get_args(known))}")
    if bias is None:
        bias = jnp.zeros(channels, x.dtype)
    pad = dilation * (k // 2) if padding == "SAME" else 0
    if implementation == "lax":
        return _lax(x, kernel, dilation, pad) + bias.reshape(1, 1, 1, -1)
    sums = _SUMS[implementation or "default"]
    return _conv(x, kernel, bias, dilation, pad, sums)


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
    x: Array, kernel: Array, bias: Array, dilation: int, pad: int, sums: Any
) -> Array:
    forward, _ = sums
    return forward(_pad(x, pad), kernel, bias, dilation)


def _conv_forward(
    x: Array, kernel: Array, bias: Array, dilation: int, pad: int, sums: Any
) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, bias, dilation, pad, sums), (x, kernel)


def _conv_backward(
    dilation: int, pad: int, sums: Any, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array, Array]:
    # Differentiated tap by tap, each of the k² shifts would become a padded array.
    x, kernel = residuals
    forward, kernel_gradient = sums
    around = dilation * (kernel.shape[0] - 1) - pad
    no_bias = jnp.zeros(kernel.shape[-1], dy.dtype)
    dx = forward(_pad(dy, around), kernel[::-1, ::-1], no_bias, dilation)
    dkernel = kernel_gradient(_pad(x, pad), dy, kernel.shape[0], dilation)
    dbias = dy.sum((0, 1, 2), dtype=_wide(dy.dtype))
    return dx, dkernel.astype(kernel.dtype), dbias.astype(dy.dtype)


_conv.defvjp(_conv_forward, _conv_backward)


@jax.jit(static_argnums=3, inline=True)  # traced once for all layers of a shape
def _shift(x: Array, kernel: Array, bias: Array, dilation: int) -> Array:
    _, h, w, c = x.shape
    k = kernel.shape[0]
    h, w = h - dilation * (k - 1), w - dilation * (k - 1)
    # Sums are float32 at least: 25 roundings to bfloat16 would cost 0.02 dB.
    wide = _wide(x.dtype)
    out = bias.astype(wide).reshape(1, 1, 1, c)
    for i in range(k):
        for j in range(k):
            top, left = i * dilation, j * dilation
            part = x[:, top : top + h, left : left + w].astype(wide)
            out = out + part * kernel[i : i + 1, j : j + 1].astype(wide)
    return out.astype(x.dtype)


def _shift_kernel_gradient(x: Array, dy: Array, k: int, dilation: int) -> Array:
    n, h, w, c = dy.shape
    wide = _wide(dy.dtype)
    # Sums of slices first: XLA on CPU makes one fast loop of them, and a slow one of a
    # product under a reduction. The loop over taps keeps the program small.
    rows = -(-h // min(h, _GROUPS))
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
    return sums.sum((1, 2, 3)).reshape(k, k, 1, c)


def _pad(x: Array, pad: int) -> Array:
    if not pad:
        return x
    return store(jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))))


def _wide(dtype: Any) -> Any:
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@jax.jit(static_argnums=(2, 3), inline=True)
def _kernel_gradient(x: Array, dy: Array, k: int, dilation: int) -> Array:
    def shift(x: Array, dy: Array) -> Array:
        return _shift_kernel_gradient(x, dy, k, dilation)

    if _wide(x.dtype) != jnp.float32 or _has_old_gpu():
        return shift(x, dy)
    return lax.platform_dependent(
        x,
        dy,
        cuda=lambda x, dy: depthwise_pallas.kernel_gradient(x, dy, k, dilation),
        default=shift,
    )


def _has_old_gpu() -> bool:
    # XLA takes Triton only from compute capability 8.0, Ampere, on. Without a GPU here
    # the program is for another machine.
    versions = [getattr(gpu, "compute_capability", "") for gpu in jax.local_devices()]
    return any(v[:1].isdigit() and float(v) < 8 for v in versions)


def _kernel_gradient_forward(
    x: Array, dy: Array, k: int, dilation: int
) -> tuple[Array, tuple[Array, Array]]:
    return _kernel_gradient(x, dy, k, dilation), (x, dy)


def _kernel_gradient_backward(
    k: int, dilation: int, residuals: tuple[Array, Array], slope: Array
) -> tuple[Array, Array]:
    # It is linear in both, so its gradients are convolutions again.
    x, dy = residuals
    slope = slope.astype(x.dtype)
    no_bias = jnp.zeros(slope.shape[-1], x.dtype)
    around = _pad(dy, dilation * (k - 1))
    dx = _shift(around, slope[::-1, ::-1], no_bias, dilation)
    return dx, _shift(x, slope, no_bias, dilation)


_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)


# By implementation, how to compute the output and the gradient of the kernel.
_SUMS = {
    "shift": (_shift, _shift_kernel_gradient),
    "pallas": (depthwise_pallas.forward, depthwise_pallas.kernel_gradient),
    "default": (_shift, _kernel_gradient),
}
