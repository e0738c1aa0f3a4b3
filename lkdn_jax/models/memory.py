"""Notice that there is not enough memory for a run while that can still be caught.

XLA reports it as an error, but Eigen, which multiplies its matrices on CPU, ends the
process. So what a run needs is asked for, and given back, right before it.
"""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from lkdn_jax.errors import InputError
from lkdn_jax.models.lkdn import LKDN

# Feature maps of a run: eight of XLA's work memory, upsampler included, two in which
# Eigen packs what it multiplies, and one to spare.
_MAPS = 11


def needed_memory(model: LKDN, h: int, w: int) -> int:
    """Return a bound on what inference of one image takes on CPU, parameters aside.

    Args:
        model: The network, optimized for inference or not.
        h: Height of the LR image.
        w: Width of the LR image.

    Returns:
        Bytes: work memory and float32 output.
    """
    return 4 * h * w * (_MAPS * model.features + 3 * model.scale**2)


def check_memory(model: LKDN, h: int, w: int, backend: str | None = None) -> None:
    """Check that there is memory for inference of one image on CPU.

    What is asked for is given back and not touched: this sees a limited address space,
    and a request beyond what the system has, but not that a container will be ended for
    what it uses, nor that several devices compute at a time.

    Args:
        model: The network, optimized for inference or not.
        h: Height of the LR image.
        w: Width of the LR image.
        backend: The platform of the device, such as `cpu` or `gpu`; None for jax's.
            Other platforms than CPU report a lack of memory themselves.

    Raises:
        MemoryError: There is not.
    """
    if (backend or jax.default_backend()) == "cpu":
        np.empty(needed_memory(model, h, w), np.uint8)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that a run found not enough memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


@contextlib.contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Say in one line what to do where the body runs out of memory.

    Args:
        advice: What did not fit, and what to do.

    Raises:
        InputError: The body ran out of memory.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(advice) from error
