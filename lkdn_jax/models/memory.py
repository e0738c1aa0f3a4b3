"""Notice that there is not enough memory for a run while that can still be caught.

XLA reports it as an error, but Eigen, which multiplies its matrices on CPU, ends the
process. So what a run needs is asked for, and given back, right before it.
"""

import jax
import numpy as np

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
    """Check that inference of one image will not run out of memory on CPU.

    Args:
        model: The network, optimized for inference or not.
        h: Height of the LR image.
        w: Width of the LR image.
        backend: The platform of the device, such as `cpu` or `gpu`; None for jax's.
            Other platforms than CPU report a lack of memory themselves.

    Raises:
        MemoryError: It does not fit.
    """
    if (backend or jax.default_backend()) == "cpu":
        np.empty(needed_memory(model, h, w), np.uint8)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that a run found not enough memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
