"""Depthwise convolution for GPUs, in Pallas by way of Triton; interpreted elsewhere.

Both kernels read the input once from memory: neighbouring taps find it in the cache or
in registers. Arrays are NHWC and padded by the caller. Sums are float32.
"""

from collections.abc import Callable
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

_CHANNELS = 64  # of one program at most; a power of two
_COLUMNS = 16  # of one program, forward
_ROWS = 4  # of one program, forward, `dilation` apart: a loaded row serves k of them
_GRADIENT_COLUMNS = 8  # k² sums of this many columns stay in registers
_GRADIENT_ROWS = 4  # of one program: enough programs to fill a card at batch 64


def forward(x: Array, kernel: Array, bias: Array, dilation: int) -> Array:
    """Convolve without padding; images that are on several devices stay there.

    Args:
        x: Input [n, h + dilation·(k − 1), w + dilation·(k − 1), c], floating point.
        kernel: Kernel [k, k, 1, c].
        bias: Bias [c].
        dilation: Distance between neighbouring taps, in pixels.

    Returns:
        Output [n, h, w, c] of the dtype of `x`.
    """
    run = _forward if jax.device_count() == 1 else _forward_by_device
    one_by_one = sequential_vmap(lambda x, kernel, bias: run(x, kernel, bias, dilation))
    return one_by_one(x, kernel, bias)


@partial(jax.jit, static_argnums=(2, 3))  # traced once, however many layers
def kernel_gradient(x: Array, dy: Array, k: int, dilation: int) -> Array:
    """Differentiate by the kernel.

    Images that are on several devices stay there, and only their sums travel.

    Args:
        x: Input [n, h + dilation·(k − 1), w + dilation·(k − 1), c], floating point.
        dy: Gradient by the output [n, h, w, c], of the dtype of `x`.
        k: Height and width of the kernel.
        dilation: Distance between neighbouring taps, in pixels.

    Returns:
        Gradient by the kernel [k, k, 1, c], float32.
    """
    run = _kernel_gradient if jax.device_count() == 1 else _gradient_by_device
    one_by_one = sequential_vmap(lambda x, dy: run(x, dy, k, dilation))
    return one_by_one(x, dy)


def _forward(x: Array, kernel: Array, bias: Array, dilation: int) -> Array:
    k = kernel.shape[0]
    n, h, w, c = _inner_shape(x, k, dilation)
    channels = _channels(c)
    # Program r does the rows r//d·(d·_ROWS) + r%d, and on in steps of d.
    bands = pl.cdiv(h, _ROWS * dilation) * dilation
    call = partial(
        pl.pallas_call,
        partial(_forward_kernel, k=k, dilation=dilation, channels=channels),
        out_shape=jax.ShapeDtypeStruct((n, h, w, c), x.dtype),
        grid=(n * bands, pl.cdiv(w, _COLUMNS), pl.cdiv(c, channels)),
        compiler_params=triton.CompilerParams(num_warps=4),
        name="depthwise_forward",
    )
    return _run(call, x, kernel.reshape(k * k, c), bias.reshape(1, c))


def _kernel_gradient(x: Array, dy: Array, k: int, dilation: int) -> Array:
    n, h, _, c = dy.shape
    channels = _channels(c)
    bands = pl.cdiv(h, _GRADIENT_ROWS)
    blocks = pl.cdiv(c, channels)
    call = partial(
        pl.pallas_call,
        partial(_gradient_kernel, k=k, dilation=dilation, channels=channels),
        out_shape=jax.ShapeDtypeStruct(
            (n * bands, k * k, blocks * channels), jnp.float32
        ),
        grid=(n * bands, blocks),
        compiler_params=triton.CompilerParams(num_warps=4),
        name="depthwise_kernel_gradient",
    )
    sums = _run(call, x, dy).sum(0)
    return sums[:, :c].reshape(k, k, 1, c)


def _split_forward(dilation: int, mesh: Mesh, shapes: Any, _: Any) -> Any:
    images, whole, _ = _shardings(mesh, shapes[0])

    def forward(x: Array, kernel: Array, bias: Array) -> Array:
        return _forward(x, kernel, bias, dilation)

    return mesh, forward, images, (images, whole, whole)


def _split_gradient(k: int, dilation: int, mesh: Mesh, shapes: Any, _: Any) -> Any:
    images, whole, axis = _shardings(mesh, shapes[0])

    def gradient(x: Array, dy: Array) -> Array:
        sums = _kernel_gradient(x, dy, k, dilation)
        return sums if axis is None else lax.psum(sums, axis)

    return mesh, gradient, whole, (images, images)


def _shardings(mesh: Mesh, x: Any) -> tuple[NamedSharding, NamedSharding, Any]:
    axis = next(iter(getattr(x.sharding, "spec", ())), None)
    of_images, whole = PartitionSpec(axis), PartitionSpec()
    return NamedSharding(mesh, of_images), NamedSharding(mesh, whole), axis


# XLA cannot split a kernel that is not its own: it would gather all images.
_forward_by_device = custom_partitioning(_forward, static_argnums=(3,))
_forward_by_device.def_partition(
    _split_forward, sharding_rule="n a b c, i j k c, c -> n h w c"
)
_gradient_by_device = custom_partitioning(_kernel_gradient, static_argnums=(2, 3))
_gradient_by_device.def_partition(
    _split_gradient, sharding_rule="n a b c, n h w c -> i j k c"
)


def _forward_kernel(
    x: Any, kernel: Any, bias: Any, out: Any, *, k: int, dilation: int, channels: int
) -> None:
    _, h, w, c = out.shape
    bands = pl.cdiv(h, _ROWS * dilation) * dilation
    image, band = _divide(pl.program_id(0), bands)
    block, offset = _divide(band, dilation)
    top = block * (dilation * _ROWS) + offset
    left, first = pl.program_id(1) * _COLUMNS, pl.program_id(2) * channels
    of_channels = pl.ds(first, channels)
    inside = (first + jnp.arange(channels) < c)[None]
    columns = (left + jnp.arange(_COLUMNS))[:, None]

    def load_row(ref: Any, index: int) -> Array:
        at = ref.at[pl.ds(index, 1), of_channels]
        return triton.load(at, mask=inside, other=0.0).astype(jnp.float32)

    start = jnp.zeros((_COLUMNS, channels), jnp.float32) + load_row(bias, 0)
    sums = [start] * _ROWS
    for j in range(k):
        taps = [load_row(kernel, i * k + j) for i in range(k)]
        in_x = (columns + j * dilation < x.shape[2]) & inside
        for step in range(_ROWS + k - 1):
            row = top + step * dilation
            part = triton.load(
                x.at[image, row, pl.ds(left + j * dilation, _COLUMNS), of_channels],
                mask=in_x & (row < x.shape[1]),
                other=0.0,
            ).astype(jnp.float32)
            for i in range(max(0, step - _ROWS + 1), min(k, step + 1)):
                sums[step - i] += part * taps[i]
    for step in range(_ROWS):
        row = top + step * dilation
        triton.store(
            out.at[image, row, pl.ds(left, _COLUMNS), of_channels],
            sums[step].astype(out.dtype),
            mask=(columns < w) & inside & (row < h),
        )


def _gradient_kernel(
    x: Any, dy: Any, out: Any, *, k: int, dilation: int, channels: int
) -> None:
    _, h, w, c = dy.shape
    bands = pl.cdiv(h, _GRADIENT_ROWS)
    image, band = _divide(pl.program_id(0), bands)
    first = pl.program_id(1) * channels
    of_channels = pl.ds(first, channels)
    inside = (first + jnp.arange(channels) < c)[None]
    tiles = pl.cdiv(w, _GRADIENT_COLUMNS)

    def add_tile(tile: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        row, column = _divide(tile, tiles)
        row, left = band * _GRADIENT_ROWS + row, column * _GRADIENT_COLUMNS
        columns = (left + jnp.arange(_GRADIENT_COLUMNS))[:, None]
        # Zero outside of dy, so whatever x holds there counts for nothing.
        mask = (columns < w) & inside & (row < h)

        def load(ref: Any, down: int, right: int) -> Array:
            at = ref.at[
                image,
                row + down,
                pl.ds(left + right, _GRADIENT_COLUMNS),
                of_channels,
            ]
            return triton.load(at, mask=mask, other=0.0).astype(jnp.float32)

        slope = load(dy, 0, 0)
        return tuple(
            total + slope * load(x, tap // k * dilation, tap % k * dilation)
            for tap, total in enumerate(sums)
        )

    zeros = (jnp.zeros((_GRADIENT_COLUMNS, channels), jnp.float32),) * (k * k)
    steps = jnp.int32(_GRADIENT_ROWS * tiles)
    sums = lax.fori_loop(jnp.int32(0), steps, add_tile, zeros)
    for tap, total in enumerate(sums):
        out[pl.program_id(0), tap, of_channels] = total.sum(0)


def _divide(number: Array, by: int) -> tuple[Array, Array]:
    # Triton's lowering knows no floor division; these numbers are not negative.
    divisor = jnp.int32(by)
    return lax.div(number, divisor), lax.rem(number, divisor)


def _run(call: Callable[..., Any], *arrays: Array) -> Any:
    return lax.platform_dependent(
        *arrays,
        cuda=lambda *arrays: call()(*arrays),
        default=lambda *arrays: call(interpret=True)(*arrays),
    )


def _inner_shape(x: Array, k: int, dilation: int) -> tuple[int, int, int, int]:
    n, h, w, c = x.shape
    return n, h - dilation * (k - 1), w - dilation * (k - 1), c


def _channels(c: int) -> int:
    return min(_CHANNELS, pl.next_power_of_2(c))
