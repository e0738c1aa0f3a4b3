"""A network on devices: one compiled program for each shape of window."""

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
_WASTE = 1.25  # a compiled shape is used for another if it has at most this many pixels


class Program:
    """A network, optimized for inference, on devices of one kind.

    A window slightly smaller than one before it is padded to its shape, and the network
    masks what lies outside: one more program, for all such windows. Where programs
    become many, the one that was not used for longest is dropped.
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
        optimized = optimize_for_inference(params, dtype)
        self._params = [jax.device_put(optimized, device) for device in devices]
        self._model = optimized_model(model).clone(dtype=dtype)
        self._options = compiler_options(self._model, devices[0].platform)
        # Of height, width, whether exact; channels, dtypes. The last was used last.
        self._programs: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
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
        shape = self._shape(h, w, (c, lr.dtype, out))
        exact = shape == (h, w)
        if not exact:
            lr = np.pad(lr, ((0, shape[0] - h), (0, shape[1] - w), (0, 0)))
        check_memory(self._model, *shape, self._devices[device].platform)
        program = self._get((*shape, exact, c, lr.dtype, out))
        size = None if exact else np.array([h, w], np.int32)
        lr, size = jax.device_put((lr, size), self._devices[device])
        return program(self._params[device], lr, size)

    def forget_shapes(self) -> None:
        """Take no window for another's shape that came before: one did not fit."""
        with self._lock:
            self._programs.clear()

    def _get(self, key: tuple[Any, ...]) -> Any:
        with self._lock:
            program = self._programs.pop(key, None)
            if program is None:
                if len(self._programs) >= _PROGRAMS:
                    self._programs.popitem(last=False)
                    forget_traces()
                forward = partial(self._forward, out=key[-1])
                program = jax.jit(forward, compiler_options=self._options)
            self._programs[key] = program
        return program

    def _shape(self, h: int, w: int, kind: tuple[Any, ...]) -> tuple[int, int]:
        known = [
            key[:2]
            for key in tuple(self._programs)  # another thread may add one meanwhile
            if key[3:] == kind
            and h <= key[0]
            and w <= key[1]
            and key[0] * key[1] <= _WASTE * h * w
        ]
        return min(known, key=lambda shape: shape[0] * shape[1], default=(h, w))

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
