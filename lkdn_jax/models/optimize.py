"""What can be computed once from the parameters, before any image comes.

Beyond folding (`lkdn_jax.fold`): the image enters LKDN four times, so the first 1×1
convolution is one of the sum of its four kernels; LayerNorm subtracts the mean over
channels, which the convolution before it can do in its kernel; and channels that are no
multiple of a vector are slow, so zeros are added to them. All exact in real arithmetic;
the sums are taken in float64 and rounded once. And how XLA is to compile the result.
"""

import functools
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from lkdn_jax.errors import InputError
from lkdn_jax.models.lkdn import INPUT_COPIES, LKDN, VECTOR, round_up
from lkdn_jax.models.reparam import fold, folded_model

Params = Mapping[str, Any]


_CPUINFO = Path("/proc/cpuinfo")
_DEPTHWISE = ("dw", "depthwise", "depthwise_dilated")
_DISTILLED = ("c1_d", "c2_d", "c3_d", "c4")  # side by side two fill a longer vector


def optimize_for_inference(
    params: Params, dtype: DTypeLike | None = None, backend: str | None = None
) -> dict[str, Any]:
    """Fold a tree, sum the four input kernels, centre every `c6`, and add channels.

    Args:
        params: Parameters of an `LKDN`, of any width, depth and scale, folded or not.
        dtype: That of the network, if it is bfloat16: what the network rounds at every
            call is rounded here. The tree is then of use to no other dtype.
        backend: The platform of the devices, such as `cpu` or `gpu`; None for jax's.

    Returns:
        A new tree for `optimized_model(model, backend)`, float32, with `dtype` where
        that is given: the 1×1 kernels of the blocks. Its shapes are those for this
        machine: to keep is the tree it was made from. Runs on the host, not in `jit`.

    Raises:
        InputError: A tree of something else, or one that is optimized already.
    """
    flat = flatten_dict(fold(params))
    first: Any = flat.get(("fea_conv", "pw", "kernel"))
    if np.shape(first)[2:3] != (INPUT_COPIES * 3,):
        raise InputError(
            "not the parameters of an LKDN, or optimized already: give the tree that "
            "has fea_conv, as trained or folded"
        )
    vector = vector_length(backend)
    parts = {"c5": 4, "c1": len({path[0] for path in flat if path[0][0] == "B"})}
    out = {}
    for path, array in flat.items():
        *_, layer, leaf = path
        array = np.asarray(array, np.float64)
        if layer == "c6":
            array = array - array.mean(-1, keepdims=True)
        if path[0] == "fea_conv" and layer == "pw":
            array = array.reshape(1, 1, INPUT_COPIES, 3, -1).sum(2)
        elif leaf == "kernel" and layer not in _DEPTHWISE:
            # The input is a concatenation of parts, each of which may become wider.
            k, _, inputs, outputs = array.shape
            count = parts.get(layer, 1)
            array = array.reshape(k, k, count, inputs // count, outputs)
            array = _pad(array, 3, vector // 2 if layer == "c5" else vector)
            array = array.reshape(k, k, -1, outputs)
        if layer != "conv3":  # the upsampler's output is the image
            narrow = path[1] in _DISTILLED
            array = _pad(array, array.ndim - 1, VECTOR if narrow else vector)
        rounded = leaf == "kernel" and path[0][0] == "B" and layer not in _DEPTHWISE
        array = array.astype(np.float32)
        if rounded and dtype is not None:
            array = array.astype(jnp.dtype(dtype))
        out[path] = jax.device_put(array)
    return unflatten_dict(out)


def optimized_model(model: LKDN, backend: str | None = None) -> LKDN:
    """Return the network that takes the optimized parameters of `model`.

    Args:
        model: The network as trained, or folded.
        backend: The platform of the devices, such as `cpu` or `gpu`; None for jax's.

    Returns:
        The same function, in less time; a network that is optimized already as it is.
    """
    if model.optimized_from is not None:
        return model
    features, vector = model.features, vector_length(backend)
    distilled, attention = model.inner_features()
    return folded_model(model).clone(
        optimized_from=features,
        features=round_up(features, vector),
        # Two parts side by side are whole vectors.
        distilled=round_up(distilled, vector // 2),
        attention_features=round_up(attention, vector),
    )


def vector_length(backend: str | None = None) -> int:
    """Return of what number the channels of an optimized network are multiples.

    Args:
        backend: The platform of the devices, such as `cpu` or `gpu`; None for jax's.

    Returns:
        16 on CPUs with AVX-512, as Linux lists it: a register holds as many, and LKDN's
        56 channels, in halves of registers, take longer than 64. Measured on Zen 5, in
        float32 (`docs/performance.md`); bfloat16 and 8 channels take longer with 16.
        Otherwise 8.
    """
    cpu = (backend or jax.default_backend()) == "cpu"
    return 2 * VECTOR if cpu and _has_avx512() else VECTOR


@functools.cache
def _has_avx512() -> bool:
    try:
        return "avx512f" in _CPUINFO.read_text().split()
    except OSError:  # not Linux
        return False


def compiler_options(model: LKDN, backend: str | None = None) -> dict[str, str]:
    """Return options of XLA under which inference takes the least time on two cores.

    On CPU they leave convolutions to YNNPACK and matrix products to Eigen: until its
    second thread runs YNNPACK loses more than it gains by speed. With both left to
    Eigen, one core took 2 to 9 % longer (`docs/performance.md`). Where there is
    AVX-512, registers are used whole. Measured on x86-64, in float32; otherwise XLA
    keeps its own choice.

    Args:
        model: The network.
        backend: The platform of the devices, such as `cpu` or `gpu`; None for jax's.

    Returns:
        What `jax.jit` takes as `compiler_options`.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    cpu = (backend or jax.default_backend()) == "cpu"
    float32 = model.dtype is None or jnp.dtype(model.dtype) == jnp.float32
    if not (x86 and cpu and float32):
        return {}
    # What YNNPACK still does: convolutions, and so not products.
    kept = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    options = {"xla_cpu_experimental_ynn_fusion_type": kept}
    if _has_avx512():
        options["xla_cpu_prefer_vector_width"] = "512"
    return options


def _pad(array: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    length = array.shape[axis]
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, round_up(length, multiple) - length)
    return np.pad(array, widths)
