"""Folding: every RBSB becomes one BSConv and the `rep` upsampler one 3×3 convolution.

Both are linear maps written as sums of branches, so the folded network computes the
same function with fewer operations. The sums are taken in float64 and rounded once.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lkdn_jax.models.lkdn import LKDN

Params = Mapping[str, Any]


def fold(params: Params) -> dict[str, Any]:
    """Fold the re-parameterizable parts of a parameter tree.

    Args:
        params: Parameters of an `LKDN`, of any width, depth and scale.

    Returns:
        A new tree for `folded_model(model)`; what was folded is float32. Parts that
        have nothing to fold are the same arrays as in `params`; folding twice changes
        nothing. Runs on the host, so not under `jit`.
    """
    if "rep1x1" in params:
        return _fold_rbsb(params)
    if "conv1x1" in params:
        return _fold_upsampler(params)
    return {
        name: fold(node) if isinstance(node, Mapping) else node
        for name, node in params.items()
    }


def folded_model(model: LKDN) -> LKDN:
    """Return the network that takes the folded parameters of `model`.

    Args:
        model: The network as trained.

    Returns:
        The same network with BSB for RBSB and the `direct` upsampler; equal to `model`
        if that has nothing to fold.
    """
    shallow_block = "BSB" if model.shallow_block == "RBSB" else model.shallow_block
    return model.clone(shallow_block=shallow_block, upsampler="direct")


def fold_difference(model: LKDN, params: Params, *, size: int = 48) -> float:
    """Measure how far the folded network is from the one it was folded from.

    Args:
        model: The network as trained.
        params: Its parameters.
        size: Height and width of the random input, in LR pixels.

    Returns:
        The largest absolute difference of the outputs, on the scale of [0, 1], for a
        random input in [0, 1]. NaN if an output is not finite.
    """
    # By numpy: jax would compile a program for it.
    lr = jax.device_put(np.random.default_rng(0).random((1, size, size, 3), "float32"))
    with jax.default_matmul_precision("highest"):
        sr = jax.jit(model.apply)({"params": params}, lr)
        folded = jax.jit(folded_model(model).apply)({"params": fold(params)}, lr)
    # By numpy: XLA on CPU takes the maximum of a NaN and a number to be the number.
    return float(np.max(np.abs(np.asarray(sr) - np.asarray(folded))))


def _float64(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def _conv(kernel: np.ndarray, bias: np.ndarray | None = None) -> dict[str, Any]:
    arrays = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    # Not by jnp, which would compile a program for each shape.
    return {n: jax.device_put(a.astype(np.float32)) for n, a in arrays.items()}


def _fold_rbsb(params: Params) -> dict[str, Any]:
    # y = (pw + 1)·x, and out = (dw + [1 + rep1x1] at the centre)·y.
    pw, dw, rep1x1 = (params[name] for name in ("pw", "dw", "rep1x1"))
    pointwise = _float64(pw["kernel"])
    depthwise = _float64(dw["kernel"]).copy()
    centre = depthwise.shape[0] // 2
    depthwise[centre, centre] += 1 + _float64(rep1x1["kernel"])[0, 0]
    return {
        "pw": _conv(pointwise + np.eye(pointwise.shape[-1])),
        "dw": _conv(depthwise, _float64(dw["bias"]) + _float64(rep1x1["bias"])),
    }


def _fold_upsampler(params: Params) -> dict[str, Any]:
    # The 1×1 of the third branch is padded with its own bias, so the branch is one
    # 3×3 convolution up to the border: the product of the two kernels.
    first, second = params["conv1x1"], params["conv3x3"]
    kernel = _float64(params["conv3"]["kernel"]).copy()
    kernel[1, 1] += _float64(params["conv1"]["kernel"])[0, 0]
    kernel += np.einsum(
        "im,hwmo->hwio",
        _float64(first["kernel"])[0, 0],
        _float64(second["kernel"]),
    )
    bias = np.einsum("m,hwmo->o", _float64(first["bias"]), _float64(second["kernel"]))
    for name in ("conv1", "conv3", "conv3x3"):
        bias = bias + _float64(params[name]["bias"])
    return {"conv3": _conv(kernel, bias)}
