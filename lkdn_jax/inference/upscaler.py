"""Upscale arrays and photographs of any size with few compiled programs."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from flax.typing import Dtype

from lkdn_jax.data.photo import Photo, from_pil, split_alpha, to_pil
from lkdn_jax.errors import InputError
from lkdn_jax.inference.alpha import is_constant, keep_flat
from lkdn_jax.inference.flips import FLIPS, flip, unflip
from lkdn_jax.inference.program import Program, quantize
from lkdn_jax.inference.tiling import (
    Window,
    receptive_radius,
    window_shape,
    windows,
)
from lkdn_jax.models.lkdn import LKDN, expected_params
from lkdn_jax.models.memory import is_out_of_memory, memory_advice
from lkdn_jax.progress import ignore
from lkdn_jax.weights.files import Params, load
from lkdn_jax.weights.published import check_finite, check_params

TILE = 640  # LR pixels; about 1.2 GB of work memory with LKDN's context
_SMALLEST_TILE = 32
_WIDEST = 8  # bytes of a number; jax knows no longdouble
# Of floating point, with room for what a network overshoots: more is of another range.
_DARKEST, _BRIGHTEST = -0.5, 1.5


class Upscaler:
    """A network that upscales images of any size and kind.

    Large images go through the network in windows of one shape; the result does not
    depend on their size. The first image compiles a program, about two seconds on two
    cores, and so does one that fits into none before. Smaller ones are padded and share
    one more; a size that comes often gets one of its own. The 16 used last stay
    compiled, and of every one there ever was jax keeps about 2 MB, until
    `jax.clear_caches()`.
    Threads may share an upscaler; processes load one each.

    Attributes:
        scale: The factor s.
        tile: Largest tile, in LR pixels; halved when the device runs out of memory.
        context: LR pixels around a tile.

    Example:
        >>> import numpy as np, tempfile, jax
        >>> import lkdn_jax
        >>> model = lkdn_jax.LKDN(scale=2, features=8, num_blocks=1)
        >>> params = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), "float32"))
        >>> path = tempfile.mkdtemp() + "/small.msgpack"
        >>> lkdn_jax.save(path, model, params["params"])
        >>> upscaler = lkdn_jax.Upscaler(path)
        >>> upscaler(np.zeros((30, 20, 3), np.uint8)).shape
        (60, 40, 3)
        >>> upscaler = lkdn_jax.Upscaler((model, params["params"]), tile=64)
        >>> upscaler(np.zeros((5, 30, 20, 3), np.uint16)).dtype
        dtype('uint16')
    """

    def __init__(
        self,
        weights: str | Path | tuple[LKDN, Params],
        *,
        tile: int = TILE,
        context: int | None = None,
        self_ensemble: bool = False,
        dtype: Dtype | None = None,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Load a network.

        Args:
            weights: A .pth, .safetensors or .msgpack file; or a network and its
                parameters, as `lkdn_jax.load` returns them.
            tile: Largest height and width of a tile, in LR pixels.
            context: LR pixels around a tile; None takes what makes the result exact.
                32 changes it by one grey level at most and is faster.
            self_ensemble: Average over the eight flips and transposes: eight times the
                work for about 0.1 dB.
            dtype: Dtype of the computation, float32 or bfloat16, or its name; None for
                float32.
            devices: Devices of one kind that share the tiles of an image, beginning
                with the first; None takes all local ones.

        Raises:
            InputError: An unusable file, parameters that do not fit the network or are
                not finite, or one of the other arguments is not as said.
        """
        pair = weights if isinstance(weights, tuple) else ()
        if len(pair) == 2 and isinstance(pair[0], LKDN):
            model, params = pair
            check_params(params, expected_params(model))
            check_finite(params)
        elif isinstance(weights, (str, os.PathLike)):
            model, params = load(weights)
            check_finite(params, f"{weights}: ")
        else:
            raise InputError(
                f"weights of type {type(weights).__name__}: give a file or a tuple "
                "(model, params)"
            )
        devices = list(jax.local_devices() if devices is None else devices)
        _check_options(tile, context, dtype, devices)
        self.scale, self.tile = model.scale, tile
        self.context = receptive_radius(model) if context is None else context
        self._ensemble = self_ensemble
        self._devices = devices
        self._program = Program(model, params, self._devices, dtype)

    @overload
    def __call__(self, image: PIL.Image.Image) -> PIL.Image.Image: ...
    @overload
    def __call__(self, image: np.ndarray) -> np.ndarray: ...
    def __call__(self, image: Any) -> Any:
        """Upscale an image or a batch of images.

        Args:
            image: [h, w], [h, w, c] or [n, h, w, c] with c = 1 (grey), 2 (grey, alpha),
                3 (RGB) or 4 (RGB, alpha); uint8, uint16, or floating point in [0, 1]
                (half beyond is taken: a network's output overshoots a little).
                Or a PIL image of at most 8 bits a channel, or of mode `I;16`.

        Returns:
            The image s times as high and wide, of the same kind and dtype, in numpy if
            it is no PIL image. Integers are rounded; floating point is not clipped.

        Raises:
            InputError: An array of another shape, dtype or range, or an image that does
                not fit into memory even in small tiles.
        """
        if isinstance(image, PIL.Image.Image) and all(image.size):
            photo = from_pil(image)
            if photo.alpha is not None and photo.alpha.dtype != np.uint8:
                raise InputError(
                    "16-bit grey with a transparent value: Pillow has no mode for the "
                    "result; give an array [h, w, 2] of grey and alpha"
                )
            return to_pil(self.photo(photo))
        if isinstance(image, (str, os.PathLike)):
            raise InputError(
                f"{image}: give the image itself, PIL.Image.open({image!r})"
            )
        image = np.asarray(image)
        image = image.astype(image.dtype.newbyteorder("="), copy=False)
        channels = image.shape[-1] if image.ndim > 2 else 1
        integer = image.dtype in (np.uint8, np.uint16)
        floating = jnp.issubdtype(image.dtype, jnp.floating)
        if (
            image.ndim not in (2, 3, 4)
            or channels not in (1, 2, 3, 4)
            or not (integer or (floating and image.itemsize <= _WIDEST))
            or image.size == 0
        ):
            raise InputError(
                f"an image of shape {list(image.shape)} and dtype {image.dtype}: give "
                "[h, w], [h, w, c] or [n, h, w, c] with 1 to 4 channels, uint8, uint16 "
                "or floating point in [0, 1] of at most 64 bits"
            )
        if image.ndim == 4:
            return np.stack([self(one) for one in image])
        if not integer and not _DARKEST <= image.min() <= image.max() <= _BRIGHTEST:
            raise InputError(
                f"floating point from {image.min()} to {image.max()}: give values in "
                "[0, 1], or uint8 for values up to 255"
            )
        pixels = image.reshape(*image.shape[:2], channels)
        out = self.photo(Photo(*split_alpha(pixels))).joined()
        return out.reshape(*out.shape[:2], *image.shape[2:])

    def photo(self, photo: Photo, tile_done: Callable[[], None] = ignore) -> Photo:
        """Upscale a photograph, its alpha channel too.

        Of alpha, what is all one value stays so.

        Args:
            photo: The photograph.
            tile_done: Called after every tile.

        Returns:
            The photograph s times as high and wide.
        """
        (h, w, _), s = photo.pixels.shape, self.scale
        with memory_advice(
            f"an image of {w}×{h}: out of memory for one of {w * s}×{h * s}; upscale "
            "parts of it"
        ):
            pixels = self._tiled(photo.opaque().pixels, tile_done)
            if photo.alpha is None:
                return photo.replace(pixels, None)
            return photo.replace(pixels, self._alpha(photo.alpha, tile_done))

    def count_tiles(self, h: int, w: int) -> int:
        """Return the number of tiles of an image [h, w]."""
        return len(windows(h, w, self.tile, self.context))

    def _alpha(self, lr: np.ndarray, tile_done: Callable[[], None]) -> np.ndarray:
        (h, w), s = lr.shape, self.scale
        if is_constant(lr):
            for _ in range(self.count_tiles(h, w)):
                tile_done()
            sr = np.full((h * s, w * s), lr[0, 0])
        else:
            sr = keep_flat(lr, self._tiled(lr[..., None], tile_done)[..., 0])
        floating = jnp.issubdtype(sr.dtype, jnp.floating)
        return sr.clip(0, 1, out=sr) if floating else sr

    def _tiled(self, image: np.ndarray, tile_done: Callable[[], None]) -> np.ndarray:
        (h, w, c), s = image.shape, self.scale
        out = np.empty((h * s, w * s, c), image.dtype)
        tile, again = self.tile, True
        while True:
            try:
                self._in_tiles(image, out, tile, tile_done)
                self.tile = min(self.tile, tile)  # another thread's may be smaller
                return out
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                # What was too large may have been the shape that it was padded to.
                if self._program.forget_shapes() and again:
                    again = False
                    continue
                largest = max(window_shape(h, w, tile, self.context))
                tile = min(tile, largest - 2 * self.context) // 2
                if tile < _SMALLEST_TILE:
                    raise InputError(
                        f"an image of {w}×{h}: out of memory "
                        "even in small tiles; give a smaller context or another device"
                    ) from error

    def _in_tiles(
        self,
        image: np.ndarray,
        out: np.ndarray,
        tile: int,
        tile_done: Callable[[], None],
    ) -> None:
        (h, w, _), s = image.shape, self.scale
        height, width = window_shape(h, w, tile, self.context)
        flips = FLIPS if self._ensemble else FLIPS[:1]
        kind = np.dtype(np.float32) if self._ensemble else image.dtype
        pending: deque[tuple[Window, int, Any]] = deque()
        total: Any = 0

        def finish() -> None:
            nonlocal total
            window, i, sr = pending.popleft()
            if self._ensemble:
                rows, columns = (width, height) if i & 4 else (height, width)
                sr = unflip(np.asarray(sr)[: rows * s, : columns * s], i)
                total = sr + total if i else sr
                if i < flips[-1]:
                    return
                sr = quantize(np, total / np.float32(8), image.dtype)
            (top, bottom), (left, right) = window.rows, window.columns
            out[top * s : bottom * s, left * s : right * s] = np.asarray(sr)[
                (top - window.top) * s : (bottom - window.top) * s,
                (left - window.left) * s : (right - window.left) * s,
            ]
            tile_done()

        device = itertools.cycle(range(len(self._devices)))
        for window in windows(h, w, tile, self.context):
            rows = slice(window.top, window.top + height)
            columns = slice(window.left, window.left + width)
            for i in flips:
                lr = flip(image[rows, columns], i)
                pending.append((window, i, self._program(lr, next(device), kind)))
                if len(pending) > len(self._devices):
                    finish()
        while pending:
            finish()


def create_upscaler(
    weights: str | Path, device: str | None, **options: Any
) -> Upscaler:
    """Create an upscaler on the local devices of one kind.

    Args:
        weights: As for `Upscaler`.
        device: `cpu`, `gpu` or `tpu`; None for what jax takes by itself.
        **options: As for `Upscaler`.

    Returns:
        The upscaler.

    Raises:
        InputError: No such device, or as for `Upscaler`.
    """
    try:
        devices = jax.local_devices(backend=device)
    except RuntimeError as error:
        if device is None:  # not this argument is wrong, but JAX_PLATFORMS
            raise
        raise InputError(
            f"no {device} here: jax finds {jax.default_backend()}; install jax for it "
            "or choose another device"
        ) from error
    return Upscaler(weights, devices=devices, **options)


def _check_options(tile: Any, context: Any, dtype: Any, devices: list[Any]) -> None:
    context = 0 if context is None else context
    for name, pixels in (("tile", tile), ("context", context)):
        if not isinstance(pixels, (int, np.integer)):
            raise InputError(f"{name} {pixels!r}: must be a whole number of pixels")
    if tile < _SMALLEST_TILE:
        raise InputError(f"tile {tile}: must be at least {_SMALLEST_TILE} pixels")
    if context < 0:
        raise InputError(f"context {context}: must not be negative")
    known = ("float32", "bfloat16")  # the networks leave the range of float16
    try:
        name = jnp.dtype(known[0] if dtype is None else dtype).name
    except TypeError:
        name = None
    if name not in known:
        raise InputError(f"dtype {dtype!r}: must be one of {', '.join(known)}")
    kinds = {getattr(device, "platform", "") for device in devices}
    if len(kinds) != 1 or "" in kinds:
        raise InputError(f"devices {devices}: give devices of one kind, jax.devices()")
