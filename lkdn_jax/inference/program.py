"""A network on devices: one compiled program for several shapes of window."""

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from lkdn_jax.models.lkdn import LKDN, forget_traces
from lkdn_jax.models.memory import check_memory
from lkdn_jax.models.optimize import (
    compiler_options,
    optimize_for_inference,
    optimized_model,
)
from lkdn_jax.weights.files import Params

_PROGRAMS = 16  # kept, those used last; each takes 20 to 35 MB
# LR pixels that a device upscales while a program compiles, and the time that a masked
# one takes: of two cores, measured, and of others, estimated for an H200.
_CPU, _OTHERS = (400_000, 65 / 64), (40_000_000, 6 / 5)


class Program:
    """A network, optimized for inference, on devices of one kind.

    A window smaller than one before it is padded to the smallest shape that fits, and
    the network masks what lies outside: one more program, for all such windows. Where
    none fits its own shape gets such a program. Windows of one shape that have lost by
    that what a compilation costs get one without a mask. Where programs become many,
    the one that was not used for longest is dropped.
    """

    def __init__(
        self,
        model: LKDN,
        params: Params,
        devices: Sequence[Any],
        dtype: Dtype | None = None,
    ) -> None:
        """Put the parameters on the devices.

        Args:
            model: The network.
            params: Its parameters, as they are trained.
            devices: Devices of one platform.
            dtype: Dtype of the computation, as in `LKDN`; None for float32.
        """
        self._devices = devices
        kind = devices[0].platform
        optimized = optimize_for_inference(params, dtype, kind)
        self._params = [jax.device_put(optimized, device) for device in devices]
        self._model = optimized_model(model, kind).clone(dtype=dtype)
        self._options = compiler_options(self._model, kind)
        self._compilation, self._masked = _CPU if kind == "cpu" else _OTHERS
        # Of height, width, whether exact; channels, dtypes. The last was used last.
        self._programs: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lost: dict[tuple[Any, ...], float] = {}  # pixels, by what was asked for
        self._lock = threading.Lock()

    def __call__(self, lr: np.ndarray, device: int, out: np.dtype) -> jax.Array:
        """Start upscaling a window; does not wait for the result.

        Args:
            lr: Window [h, w, c] with c = 1 or 3; uint8, uint16, or floating point in
                [0, 1].
            device: Number of the device.
            out: Dtype of the result: integers are rounded, floating point is not
                clipped. Of float64, float32 becomes of either.

        Returns:
            The window [h·s, w·s, c], or more rows and columns, which mean nothing.

        Raises:
            MemoryError: There is not enough memory, as `check_memory` sees it.
            JaxRuntimeError: There is not, as the device sees it.
        """
        if lr.dtype == np.float64:
            lr = lr.astype(np.float32)
        out = np.dtype(np.float32) if out == np.float64 else out
        h, w, c = lr.shape
        key, program = self._find(h, w, (c, lr.dtype, out))
        height, width, exact = key[:3]
        lr = np.pad(lr, ((0, height - h), (0, width - w), (0, 0)))
        check_memory(self._model, height, width, self._devices[device].platform)
        size = None if exact else np.array([h, w], np.int32)
        lr, size = jax.device_put((lr, size), self._devices[device])
        return program(self._params[device], lr, size)

    def forget_shapes(self) -> bool:
        """Take no window for another's shape that came before: one did not fit.

        Returns:
            Whether there were others, for which it may have been taken.
        """
        with self._lock:
            others = len(self._programs) > 1
            self._programs.clear()
        forget_traces()
        return others

    def _find(self, h: int, w: int, kind: tuple[Any, ...]) -> tuple[Any, Any]:
        with self._lock:
            key = (*self._choose(h, w, kind), *kind)
            program = self._programs.pop(key, None)
            if program is None:
                if len(self._programs) >= _PROGRAMS:
                    self._programs.popitem(last=False)
                    forget_traces()
                forward = partial(self._forward, out=kind[-1])
                program = jax.jit(forward, compiler_options=self._options)
            self._programs[key] = program
        return key, program

    def _choose(self, h: int, w: int, kind: tuple[Any, ...]) -> tuple[int, int, bool]:
        """Return height and width of the program to take, and whether it is exact."""
        known = [key[:3] for key in self._programs if key[3:] == kind]
        if not known or (h, w, True) in known:
            return h, w, True
        fitting = [key[:2] for key in known if h <= key[0] and w <= key[1]]
        height, width = min(fitting, key=math.prod, default=(h, w))
        window = h, w, *kind
        lost = self._lost.pop(window, 0) + height * width * self._masked - h * w
        if lost > self._compilation:  # and once it is dropped, as much again
            return h, w, True
        self._lost[window] = lost
        return height, width, False

    def _forward(self, params: Any, lr: Any, size: Any, out: np.dtype) -> Any:
        if lr.dtype in (jnp.uint8, jnp.uint16):
            x = lr.astype(jnp.float32) / jnp.iinfo(lr.dtype).max
        else:
            x = lr.astype(jnp.float32)
        valid = None
        if size is not None:
            rows = jnp.arange(lr.shape[0]) < size[0]
            columns = jnp.arange(lr.shape[1]) < size[1]
            valid = (rows[:, None] & columns[None])[None, :, :, None]
        rgb = jnp.broadcast_to(x, (*x.shape[:2], 3))  # of grey, three equal channels
        with jax.default_matmul_precision("highest"):
            sr: Any = self._model.apply({"params": params}, rgb[None], valid)
        sr = sr[0] if x.shape[2] == 3 else sr[0].mean(-1, keepdims=True)
        return quantize(jnp, sr, out)


def quantize(np_: Any, image: Any, dtype: np.dtype) -> Any:
    """Convert an image to its final dtype.

    Args:
        np_: numpy or jax.numpy, whichever the image is of.
        image: Floating point, about [0, 1], any shape.
        dtype: uint8 and uint16 are clipped and rounded to their full range.

    Returns:
        The image.
    """
    if not np.issubdtype(dtype, np.integer):
        return image.astype(dtype)
    largest = np.iinfo(dtype).max
    return np_.rint(np_.clip(image, 0, 1) * largest).astype(dtype)
