"""Depthwise convolution for GPUs, in Pallas by way of Triton; interpreted elsewhere.

Both kernels read the input once from memory: neighbouring taps find it in the cache or
in registers, and zeros around it are not in memory at all. Arrays are NHWC. Sums are
float32.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lkdn_jax.ops.gelu import multiply_add, polynomial_gelu

_CHANNELS = 64  # of one program at most; a power of two
_ROWS = 4  # of one program, `dilation` apart: a loaded row serves k of them
_COLUMNS = 16  # of one program, forward
_GRADIENT_COLUMNS = 8  # k² sums of this many columns stay in registers


class _How(NamedTuple):
    """What `forward` is asked for, besides arrays."""

    dilation: int
    pad: int
    interpret: bool
    activated: bool = False
    frame: int = 0


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
    how = _How(dilation, pad, interpret, activated, frame)
    run = _forward if jax.device_count() == 1 else _forward_by_device[len(gate)]
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


def _forward(arrays: tuple[Array, ...], how: _How) -> Array:
    x, kernel, bias, *gate = arrays
    n, h, w, c = x.shape
    k, dilation = kernel.shape[0], how.dilation
    around = 2 * (how.pad + how.frame) - dilation * (k - 1)
    h, w = h + around, w + around
    channels = _channels(c)
    call = pl.pallas_call(
        partial(_forward_kernel, k=k, channels=channels, how=how),
        out_shape=jax.ShapeDtypeStruct((n, h, w, c), x.dtype),
        grid=(n * _bands(h, dilation), pl.cdiv(w, _COLUMNS), pl.cdiv(c, channels)),
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
    channels = _channels(c)
    bands, blocks = _bands(h, dilation), pl.cdiv(c, channels)
    sizes = {"k": k, "dilation": dilation, "pad": pad, "channels": channels}
    call = pl.pallas_call(
        partial(_gradients_kernel, **sizes, interpret=interpret),
        out_shape=jax.ShapeDtypeStruct(
            (n * bands, k * k + 1, blocks * channels), jnp.float32
        ),
        grid=(n * bands, blocks),
        compiler_params=triton.CompilerParams(num_warps=4),
        interpret=interpret,
        name="depthwise_gradients",
    )
    return call(x, dy).sum(0)[:, :c]


def _split_forward(how: _How, mesh: Mesh, shapes: Any, _: Any) -> Any:
    (x, _, _, *gate) = shapes[0]
    images, whole, _ = _shardings(mesh, x)
    arguments = (images, whole, whole, *(images for _ in gate))
    return mesh, partial(_forward, how=how), images, (arguments,)


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
_forward_by_device = [
    custom_partitioning(_forward, static_argnums=(1,)) for _ in range(2)
]
for _gates, _by_device in enumerate(_forward_by_device):
    _by_device.def_partition(
        _split_forward,
        sharding_rule=f"n a b c, i j k c, c{', n h w c' * _gates} -> n h w c",
    )
_gradients_by_device = custom_partitioning(_gradients, static_argnums=(2, 3, 4, 5))
_gradients_by_device.def_partition(
    _split_gradients, sharding_rule="n a b c, n h w c -> t c"
)


def _forward_kernel(
    x: Any,
    kernel: Any,
    bias: Any,
    *gate_and_out: Any,
    k: int,
    channels: int,
    how: _How,
) -> None:
    *gate, out = gate_and_out
    _, h, w, c = out.shape
    dilation, pad, frame = how.dilation, how.pad + how.frame, how.frame
    fma = partial(_fma, interpret=how.interpret)
    image, top = _image_and_row(pl.program_id(0), h, dilation)
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


def _gradients_kernel(
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
    _, h, w, c = dy.shape
    image, top = _image_and_row(pl.program_id(0), h, dilation)
    first = pl.program_id(1) * channels
    of_channels = first + _arange(channels)[None]
    known = of_channels < c
    fma = partial(_fma, interpret=interpret)
    rows = _places(top, _ROWS + k - 1, dilation, pad, x.shape[1])

    def add_tile(tile: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        columns = tile * _GRADIENT_COLUMNS + _arange(_GRADIENT_COLUMNS)[:, None]
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

    zeros = (jnp.zeros((_GRADIENT_COLUMNS, channels), jnp.float32),) * (k * k + 1)
    tiles = jnp.int32(pl.cdiv(w, _GRADIENT_COLUMNS))
    sums = lax.fori_loop(jnp.int32(0), tiles, add_tile, zeros)
    for tap, total in enumerate(sums):
        out[pl.program_id(0), tap, pl.ds(first, channels)] = total.sum(0)


def _bands(h: int, dilation: int) -> int:
    """Return how many programs do the rows of an image."""
    return pl.cdiv(h, _ROWS * dilation) * dilation


def _image_and_row(program: Array, h: int, dilation: int) -> tuple[Array, Array]:
    """Return the image of a program and its first row; it goes on in steps of d."""
    image, band = _divide(program, _bands(h, dilation))
    block, offset = _divide(band, dilation)
    return image, block * (dilation * _ROWS) + offset


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
    arguments = jnp.broadcast_arrays(
        *(
            jnp.full((), v, jnp.float32) if isinstance(v, float) else v
            for v in (x, y, z)
        )
    )
    (out,) = triton.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3;",
        args=arguments,
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(arguments[0].shape, jnp.float32)],
    )
    return out


def _arange(stop: int) -> Array:
    # As the numbers of programs; jax's own would be int64 where that is the default.
    return jnp.arange(stop, dtype=jnp.int32)


def _divide(number: Array, by: int) -> tuple[Array, Array]:
    # Triton's lowering knows no floor division; these numbers are not negative.
    divisor = jnp.int32(by)
    return lax.div(number, divisor), lax.rem(number, divisor)


def _channels(c: int) -> int:
    return min(_CHANNELS, pl.next_power_of_2(c))
