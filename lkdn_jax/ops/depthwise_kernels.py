"""Kernels of the depthwise convolution for GPUs, in Pallas by way of Triton.

A program does a band, four rows that lie `dilation` apart, and up to 64 channels;
forward, `COLUMNS` columns of it. Arrays are NHWC; sums are float32.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lkdn_jax.ops.gelu import multiply_add, polynomial_gelu

_CHANNELS = 64  # of one program at most; a power of two
_ROWS = 4  # of one program, `dilation` apart: a loaded row serves k of them
COLUMNS = 16  # of one program, forward
_GRADIENT_COLUMNS = 8  # k² sums of this many columns stay in registers


class How(NamedTuple):
    """What a forward kernel is asked for, besides arrays.

    Attributes:
        dilation: Distance between neighbouring taps, in pixels.
        pad: Width of the zeros on every side, in pixels.
        interpret: Run without a GPU.
        activated: Whether GELU follows.
        frame: Width of zeros to write around the output, in pixels.
    """

    dilation: int
    pad: int
    interpret: bool
    activated: bool = False
    frame: int = 0


def forward_kernel(
    x: Any,
    kernel: Any,
    bias: Any,
    *gate_and_out: Any,
    k: int,
    channels: int,
    how: How,
) -> None:
    """Convolve [n, h, w, c] with [k², c], add [1, c], and all else that `how` says.

    The grid is (n · `bands`, columns / `COLUMNS`, c / `channels`), rounded up, with the
    rows and columns of the output.

    Args:
        x: Reference to the input.
        kernel: To the kernel.
        bias: To the bias.
        *gate_and_out: To at most one array that multiplies the output, and the output.
        k: Height and width of the kernel.
        channels: `channels_of(c)`.
        how: What is asked for.
    """
    *gate, out = gate_and_out
    _, h, w, c = out.shape
    dilation, pad, frame = how.dilation, how.pad + how.frame, how.frame
    fma = partial(_fma, interpret=how.interpret)
    tile, first = (COLUMNS, channels), pl.program_id(2) * channels
    image, top = _image_and_row(pl.program_id(0), h, dilation, tile)
    columns = pl.program_id(1) * COLUMNS + _iota(tile, 0)
    of_channels = first + _iota(tile, 1)
    known, of_vector = of_channels < c, first + _iota((1, channels), 1) < c

    def load_parameter(ref: Any, index: int) -> Array:
        at = ref.at[pl.ds(index, 1), pl.ds(first, channels)]
        number = triton.load(at, mask=of_vector, other=0.0).astype(jnp.float32)
        return jnp.broadcast_to(number, tile)

    sums = [load_parameter(bias, 0)] * _ROWS
    rows = _places(top, _ROWS + k - 1, dilation, pad, x.shape[1])
    for j, (column, in_column) in enumerate(
        _places(columns, k, dilation, pad, x.shape[2])
    ):
        taps = [load_parameter(kernel, i * k + j) for i in range(k)]
        inside = in_column & known
        for step, (row, in_row) in enumerate(rows):
            part = _load(x, (image, row, column, of_channels), inside & in_row)
            for i in range(max(0, step - _ROWS + 1), min(k, step + 1)):
                sums[step - i] = fma(part, taps[i], sums[step - i])
    for step, value in enumerate(sums):
        row = top + step * dilation
        place, inside = (image, row, columns, of_channels), (columns < w) & (row < h)
        if how.activated:
            value = polynomial_gelu(value, fma)
        for factor in gate:
            value = value * _load(factor, place, inside & known)
        if frame:
            framed = (columns >= frame) & (columns < w - frame)
            framed &= (row >= frame) & (row < h - frame)
            value = jnp.where(framed, value, 0.0)
        triton.store(out.at[place], value.astype(out.dtype), mask=inside & known)


def gradients_kernel(
    x: Any,
    dy: Any,
    out: Any,
    *,
    k: int,
    dilation: int,
    pad: int,
    channels: int,
    interpret: bool,
) -> None:
    """Sum, of every band by itself, what the kernel and the bias have as gradients.

    The grid is (n · `bands`, c / `channels`), rounded up, with the rows of `dy`.

    Args:
        x: Reference to the input [n, h, w, c].
        dy: To the gradient by the output [n, h', w', c].
        out: To the sums [n · bands, k² + 1, channels of all programs], bias last.
        k: Height and width of the kernel.
        dilation: Distance between neighbouring taps, in pixels.
        pad: Width of the zeros on every side of `x`, in pixels.
        channels: `channels_of(c)`.
        interpret: Run without a GPU.
    """
    _, h, w, c = dy.shape
    tile, first = (_GRADIENT_COLUMNS, channels), pl.program_id(1) * channels
    image, top = _image_and_row(pl.program_id(0), h, dilation, tile)
    of_channels = first + _iota(tile, 1)
    known = of_channels < c
    fma = partial(_fma, interpret=interpret)
    rows = _places(top, _ROWS + k - 1, dilation, pad, x.shape[1])

    def add_tile(number: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        columns = number * _GRADIENT_COLUMNS + _iota(tile, 0)
        # Zero outside of dy, so what a tile has beyond its edge adds nothing.
        slopes = [
            _load(
                dy, (image, row, columns, of_channels), (columns < w) & known & inside
            )
            for row, inside in _places(top, _ROWS, dilation, 0, h)
        ]
        *taps, bias = sums
        for j, (column, in_column) in enumerate(
            _places(columns, k, dilation, pad, x.shape[2])
        ):
            inside = in_column & known
            for step, (row, in_row) in enumerate(rows):
                part = _load(x, (image, row, column, of_channels), inside & in_row)
                for i in range(max(0, step - _ROWS + 1), min(k, step + 1)):
                    tap = i * k + j
                    taps[tap] = fma(part, slopes[step - i], taps[tap])
        return *taps, bias + sum(slopes)

    zeros = (jnp.zeros(tile, jnp.float32),) * (k * k + 1)
    tiles = jnp.int32(pl.cdiv(w, _GRADIENT_COLUMNS))
    sums = lax.fori_loop(jnp.int32(0), tiles, add_tile, zeros)
    for tap, total in enumerate(sums):
        out[pl.program_id(0), tap, pl.ds(first, channels)] = total.sum(0)


def bands(h: int, dilation: int) -> int:
    """Return how many programs share the rows of an image."""
    return pl.cdiv(h, _ROWS * dilation) * dilation


def _image_and_row(
    program: Array, h: int, dilation: int, tile: tuple[int, int]
) -> tuple[Array, Array]:
    """Return the image of a program and its first row; it goes on in steps of d.

    As arrays of the shape of the tile: so are all places, and none is traced anew.
    """
    image, band = _divide(program, bands(h, dilation))
    block, offset = _divide(band, dilation)
    row = block * (dilation * _ROWS) + offset
    return jnp.broadcast_to(image, tile), jnp.broadcast_to(row, tile)


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


def _fma(
    x: Array | float, y: Array | float, z: Array | float, *, interpret: bool
) -> Array:
    """Return x·y + z, float32, in one instruction: XLA does not let two become one."""
    if interpret:
        return multiply_add(x, y, z)
    shape = jnp.broadcast_shapes(*map(jnp.shape, (x, y, z)))
    arguments = [
        v
        if isinstance(v, Array) and v.shape == shape
        else jnp.broadcast_to(jnp.float32(v), shape)
        for v in (x, y, z)
    ]
    (out,) = triton.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3;",
        args=arguments,
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(shape, jnp.float32)],
    )
    return out


def _iota(tile: tuple[int, int], axis: int) -> Array:
    # As the numbers of programs; jax's own would be int64 where that is the default.
    return lax.broadcasted_iota(jnp.int32, tile, axis)


def _divide(number: Array, by: int) -> tuple[Array, Array]:
    # Triton's lowering knows no floor division; these numbers are not negative.
    divisor = jnp.int32(by)
    return lax.div(number, divisor), lax.rem(number, divisor)


def channels_of(c: int) -> int:
    """Return how many channels one program does, of `c`."""
    return min(_CHANNELS, pl.next_power_of_2(c))
