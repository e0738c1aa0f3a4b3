"""Depthwise convolution: one function, several implementations, one choice.

XLA's grouped convolution is slow on CPUs: the same sum written as k² shifted
multiply-adds runs about thirty times faster there. Arrays are NHWC.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

Implementation = Literal["lax", "shift"]


def depthwise_conv(
    x: Array,
    kernel: Array,
    *,
    dilation: int = 1,
    implementation: Implementation | None = None,
) -> Array:
    """Convolve every channel with its own k×k kernel, zero padding, same size.

    Args:
        x: Input [n, h, w, c], floating point.
        kernel: Kernel [k, k, 1, c] with k odd, of the dtype of `x`.
        dilation: Distance between neighbouring taps, in pixels, at least 1.
        implementation: `lax` (one grouped convolution) or `shift` (k² shifted
            multiply-adds); None takes `shift` on CPU and `lax` elsewhere.

    Returns:
        Output [n, h, w, c] of the dtype of `x`: a cross-correlation, as in PyTorch.

    Raises:
        ValueError: `kernel` is not [k, k, 1, c] with k odd, or `implementation` is
            none of the above.
    """
    k, channels = kernel.shape[0], x.shape[-1]
    if kernel.shape != (k, k, 1, channels) or k % 2 == 0:
        raise ValueError(
            f"kernel of shape {kernel.shape}: a depthwise kernel for {channels} "
            f"channels is [k, k, 1, {channels}] with k odd"
        )
    if implementation is None:
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: _shift(x, kernel, dilation),
            default=lambda x, kernel: _lax(x, kernel, dilation),
        )
    if implementation not in ("lax", "shift"):
        raise ValueError(f"implementation {implementation!r}: use 'lax' or 'shift'")
    return (_lax if implementation == "lax" else _shift)(x, kernel, dilation)


def _lax(x: Array, kernel: Array, dilation: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shift(x: Array, kernel: Array, dilation: int) -> Array:
    (_, h, w, _), k = x.shape, kernel.shape[0]
    padded = _pad(x, k, dilation)
    # Sums are float32 at least: 25 roundings to bfloat16 would cost 0.02 dB.
    out = jnp.zeros(x.shape, _wide(x.dtype))
    for i in range(k):
        for j in range(k):
            top, left = i * dilation, j * dilation
            part = padded[:, top : top + h, left : left + w]
            tap = kernel[i : i + 1, j : j + 1]
            out += part.astype(out.dtype) * tap.astype(out.dtype)
    return out.astype(x.dtype)


def _shift_forward(
    x: Array, kernel: Array, dilation: int
) -> tuple[Array, tuple[Array, Array]]:
    return _shift(x, kernel, dilation), (x, kernel)


def _shift_backward(
    dilation: int, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    # Differentiated tap by tap, each of the k² shifts would become a padded array.
    x, kernel = residuals
    dx: Any = _shift(dy, kernel[::-1, ::-1], dilation)
    k, wide = kernel.shape[0], _wide(dy.dtype)
    padded = _pad(x, k, dilation)

    def tap(_: None, index: Array) -> tuple[None, Array]:
        top, left = index // k * dilation, index % k * dilation
        part = lax.dynamic_slice(padded, (0, top, left, 0), x.shape)
        return None, (part.astype(wide) * dy.astype(wide)).sum((0, 1, 2))

    # A loop: XLA makes of k² reductions side by side one that is five times slower.
    _, sums = lax.scan(tap, None, jnp.arange(k * k))
    return dx, sums.reshape(kernel.shape).astype(kernel.dtype)


_shift.defvjp(_shift_forward, _shift_backward)


def _pad(x: Array, k: int, dilation: int) -> Array:
    pad = dilation * (k // 2)
    # Without the barrier XLA computes whatever made x anew for every tap.
    return lax.optimization_barrier(
        jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    )


def _wide(dtype: Any) -> Any:
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
