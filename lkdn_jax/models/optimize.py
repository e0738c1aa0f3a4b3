"""What can be computed once from the parameters, before any image comes.

Beyond folding (`lkdn_jax.fold`): the image enters LKDN four times, so the first 1×1
convolution is one of the sum of its four kernels; and LayerNorm subtracts the mean over
channels, which the convolution before it can do in its kernel. Both are exact in real
arithmetic; the sums are taken in float64 and rounded once.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lkdn_jax.models.lkdn import INPUT_COPIES, LKDN
from lkdn_jax.models.reparam import fold, folded_model

Params = Mapping[str, Any]


def optimize_for_inference(params: Params) -> dict[str, Any]:
    """Fold a parameter tree, sum the four input kernels, and centre every `c6`.

    Args:
        params: Parameters of an `LKDN`, of any width, depth and scale, folded or not.

    Returns:
        A new tree for `optimized_model(model)`; what was changed is float32. Runs on
        the host, so not under `jit`.
    """
    params = fold(params)
    for name in [name for name in params if name.startswith("B")]:
        params[name] = params[name] | {"c6": _centre(params[name]["c6"])}
    first = params["fea_conv"]
    kernel = np.asarray(first["pw"]["kernel"], np.float64)
    kernel = kernel.reshape(1, 1, INPUT_COPIES, 3, -1).sum(2)
    pw = {"kernel": jax.device_put(kernel.astype(np.float32))}
    return params | {"fea_conv": dict(first) | {"pw": pw}}


def optimized_model(model: LKDN) -> LKDN:
    """Return the network that takes the optimized parameters of `model`.

    Args:
        model: The network as trained, or folded.

    Returns:
        The same function, by fewer operations.
    """
    return folded_model(model).clone(optimized=True)


def _centre(conv: Mapping[str, Any]) -> dict[str, Any]:
    def centre(array: Any) -> Any:
        array = np.asarray(array, np.float64)
        centred = array - array.mean(-1, keepdims=True)
        return jax.device_put(centred.astype(np.float32))

    return {name: centre(array) for name, array in conv.items()}
