"""Depthwise convolution for GPUs, in Pallas by way of Triton; interpreted elsewhere.

Both kernels read the input once from memory: neighbouring taps find it in the cache or
in registers, and zeros around it are not in memory at all. Arrays are NHWC. Sums are
float32.
"""

import math
from functools import partial
from itertools import product
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


# Traced once, however many layers.
@jax.jit(static_argnames=("dilation", "pad", "interpret"))
def forward(
    x: Array, kernel: Array, bias: Array, dilation: int, pad: int, interpret: bool
) -> Array:
    """Convolve; images that are on several devices stay there.

    Args:
        x: Input [n, h, w, c], floating point.
        kernel: Kernel [k, k, 1, c].
        bias: Bias [c].
        dilation: Distance between neighbouring taps, in pixels.
        pad: Width of the zeros on every side, in pixels.
        interpret: Run without a GPU, slowly.

    Returns:
        Output [n, h', w', c] of the dtype of `x`; h' is h + 2·pad − dilation·(k − 1),
        and w' accordingly.
    """
    run = _forward if jax.device_count() == 1 else _forward_by_device
    one_by_one = sequential_vmap(
        lambda x, kernel, bias: run(x, kernel, bias, dilation, pad, interpret)
    )
    return one_by_one(x, kernel, bias)


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


def _forward(
    x: Array, kernel: Array, bias: Array, dilation: int, pad: int, interpret: bool
) -> Array:
    n, h, w, c = x.shape
    k = kernel.shape[0]
    h, w = (size + 2 * pad - dilation * (k - 1) for size in (h, w))
    channels = _channels(c)
    # Program r does the rows r//d·(d·_ROWS) + r%d, and on in steps of d.
    bands = pl.cdiv(h, _ROWS * dilation) * dilation
    sizes = {"k": k, "dilation": dilation, "pad": pad, "channels": channels}
    call = pl.pallas_call(
        partial(_forward_kernel, **sizes),
        out_shape=jax.ShapeDtypeStruct((n, h, w, c), x.dtype),
        grid=(n * bands, pl.cdiv(w, _COLUMNS), pl.cdiv(c, channels)),
        compiler_params=triton.CompilerParams(num_warps=4),
        interpret=interpret,
        name="depthwise_forward",
    )
    return call(x, kernel.reshape(k * k, c), bias.reshape(1, c))


def _gradients(
    x: Array, dy: Array, k: int, dilation: int, pad: int, interpret: bool
) -> Array:
    """Return the sums of all taps, and last that of the bias [k² + 1, c]."""
    n, h, _, c = dy.shape
    channels = _channels(c)
    bands = pl.cdiv(h, _GRADIENT_ROWS)
    blocks = pl.cdiv(c, channels)
    sizes = {"k": k, "dilation": dilation, "pad": pad, "channels": channels}
    call = pl.pallas_call(
        partial(_gradients_kernel, **sizes),
        out_shape=jax.ShapeDtypeStruct(
            (n * bands, k * k + 1, blocks * channels), jnp.float32
        ),
        grid=(n * bands, blocks),
        compiler_params=triton.CompilerParams(num_warps=4),
        interpret=interpret,
        name="depthwise_gradients",
    )
    return call(x, dy).sum(0)[:, :c]


def _split_forward(
    dilation: int, pad: int, interpret: bool, mesh: Mesh, shapes: Any, _: Any
) -> Any:
    images, whole, _ = _shardings(mesh, shapes[0])

    def forward(x: Array, kernel: Array, bias: Array) -> Array:
        return _forward(x, kernel, bias, dilation, pad, interpret)

    return mesh, forward, images, (images, whole, whole)


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
_forward_by_device = custom_partitioning(_forward, static_argnums=(3, 4, 5))
_forward_by_device.def_partition(
    _split_forward, sharding_rule="n a b c, i j k c, c -> n h w c"
)
_gradients_by_device = custom_partitioning(_gradients, static_argnums=(2, 3, 4, 5))
_gradients_by_device.def_partition(
    _split_gradients, sharding_rule="n a b c, n h w c -> t c"
)


def _forward_kernel(
    x: Any,
    kernel: Any,
    bias: Any,
    out: Any,
    *,
    k: int,
    dilation: int,
    pad: int,
    channels: int,
) -> None:
    _, h, w, c = out.shape
    bands = pl.cdiv(h, _ROWS * dilation) * dilation
    image, band = _divide(pl.program_id(0), bands)
    block, offset = _divide(band, dilation)
    top = block * (dilation * _ROWS) + offset
    left, first = pl.program_id(1) * _COLUMNS, pl.program_id(2) * channels
    columns = left + _arange(_COLUMNS)[:, None]
    of_channels = first + _arange(channels)[None]
    known = of_channels < c

    def load_parameter(ref: Any, index: int) -> Array:
        at = ref.at[pl.ds(index, 1), pl.ds(first, channels)]
        return triton.load(at, mask=known, other=0.0).astype(jnp.float32)

    start = jnp.zeros((_COLUMNS, channels), jnp.float32) + load_parameter(bias, 0)
    sums = [start] * _ROWS
    rows = _places(top, _ROWS + k - 1, dilation, pad, x.shape[1])
    for j, (column, in_column) in enumerate(
        _places(columns, k, dilation, pad, x.shape[2])
    ):
        taps = [load_parameter(kernel, i * k + j) for i in range(k)]
        inside = in_column & known
        for step, (row, in_row) in enumerate(rows):
            part = _load(x, (image, row, column, of_channels), inside & in_row)
            for i in range(max(0, step - _ROWS + 1), min(k, step + 1)):
                sums[step - i] += part * taps[i]
    for step in range(_ROWS):
        row = top + step * dilation
        triton.store(
            out.at[image, row, columns, of_channels],
            sums[step].astype(out.dtype),
            mask=(columns < w) & known & (row < h),
        )


def _gradients_kernel(
    x: Any, dy: Any, out: Any, *, k: int, dilation: int, pad: int, channels: int
) -> None:
    _, h, w, c = dy.shape
    bands = pl.cdiv(h, _GRADIENT_ROWS)
    image, band = _divide(pl.program_id(0), bands)
    first = pl.program_id(1) * channels
    tiles = pl.cdiv(w, _GRADIENT_COLUMNS)
    of_channels = first + _arange(channels)[None]
    known = of_channels < c

    def add_tile(tile: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        row, column = _divide(tile, tiles)
        row += band * _GRADIENT_ROWS
        columns = column * _GRADIENT_COLUMNS + _arange(_GRADIENT_COLUMNS)[:, None]
        # Zero outside of dy, so what a tile has beyond its edge adds nothing.
        inside = (columns < w) & known & (row < h)
        slope = _load(dy, (image, row, columns, of_channels), inside)
        rows = _places(row, k, dilation, pad, x.shape[1])
        across = _places(columns, k, dilation, pad, x.shape[2])
        across = [(column, in_column & known) for column, in_column in across]
        taps = product(rows, across)
        new = [
            total + slope * _load(x, (image, i, j, of_channels), in_row & in_column)
            for total, ((i, in_row), (j, in_column)) in zip(sums, taps, strict=False)
        ]
        return *new, sums[-1] + slope

    zeros = (jnp.zeros((_GRADIENT_COLUMNS, channels), jnp.float32),) * (k * k + 1)
    steps = jnp.int32(_GRADIENT_ROWS * tiles)
    sums = lax.fori_loop(jnp.int32(0), steps, add_tile, zeros)
    for tap, total in enumerate(sums):
        out[pl.program_id(0), tap, pl.ds(first, channels)] = total.sum(0)


def _places(
    start: Array, count: int, dilation: int, pad: int, size: int
) -> list[tuple[Array, Array]]:
    """Return where taps lie along one side, and whether that is inside the image."""
    places = [start + (step * dilation - pad) for step in range(count)]
    return [(place, (place >= 0) & (place < size)) for place in places]


def _load(ref: Any, index: tuple[Array, ...], inside: Array) -> Array:
    """Load a part of a row [columns, channels], float32, zero where not `inside`."""
    part = triton.load(ref.at[index], mask=inside, other=0.0)
    return part.astype(jnp.float32)


def _arange(stop: int) -> Array:
    # As the numbers of programs; jax's own would be int64 where that is the default.
    return jnp.arange(stop, dtype=jnp.int32)


def _divide(number: Array, by: int) -> tuple[Array, Array]:
    # Triton's lowering knows no floor division; these numbers are not negative.
    divisor = jnp.int32(by)
    return lax.div(number, divisor), lax.rem(number, divisor)


def _channels(c: int) -> int:
    return min(_CHANNELS, pl.next_power_of_2(c))
