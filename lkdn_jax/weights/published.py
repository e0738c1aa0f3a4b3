"""The published parameter names and layouts, and our parameter tree.

Our modules carry the published names, so the table is one rule: the last part of a name
is `weight` there, and `kernel` (of a convolution) or `scale` (of the LayerNorm) here. A
published convolution is [out, in, k, k], ours is [k, k, in, out].
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lkdn_jax.errors import InputError
from lkdn_jax.models.lkdn import INPUT_COPIES, LKDN

Tree = Mapping[str, Any]

_SHOWN = 12  # names listed in an error before "and n more"
_HWIO = (2, 3, 1, 0)  # from [out, in, k, k]
_OIHW = (3, 2, 0, 1)  # and back


def to_published(model: LKDN, params: Tree) -> dict[str, np.ndarray]:
    """Convert a parameter tree to the published names and layouts.

    Args:
        model: The network.
        params: Its parameters.

    Returns:
        Arrays by published name, in the dtype of `params`.
    """
    state = {}
    for path, array in flatten_dict(dict(params)).items():
        *modules, leaf = path
        array = np.asarray(array)
        if leaf == "kernel":
            array = np.ascontiguousarray(array.transpose(_OIHW))
        if leaf in ("kernel", "scale"):
            leaf = "weight"
        state[".".join((*modules, leaf))] = array
    # The authors name the convolution of their direct upsampler by its position.
    if model.upsampler == "direct":
        for leaf in ("weight", "bias"):
            state[f"upsampler.0.{leaf}"] = state.pop(f"upsampler.conv3.{leaf}")
    return state


def from_published(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Convert published names and layouts to a parameter tree, whatever is there.

    Args:
        state: Arrays by published name.

    Returns:
        The parameter tree, views of the arrays, to be checked by `check_params`.
    """
    params = {}
    for name, array in state.items():
        *modules, leaf = name.split(".")
        if modules == ["upsampler", "0"]:
            modules = ["upsampler", "conv3"]
        if leaf == "weight":
            leaf = "kernel" if array.ndim == 4 else "scale"
        if leaf == "kernel":
            array = array.transpose(_HWIO)
        params[(*modules, leaf)] = array
    return unflatten_dict(params)


def deduce_architecture(params: Tree) -> dict[str, Any]:
    """Deduce a network from the names and shapes of its parameters.

    Args:
        params: Parameter tree. A BSRB has the parameters of a BSB and is taken for one.

    Returns:
        The arguments of `LKDN`.

    Raises:
        InputError: The tree is not that of an LKDN.
    """
    shapes = _shapes(params)

    def shape(name: str) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != 4:
            raise InputError(
                f"not the weights of an LKDN: {name!r} is missing or no convolution; "
                "give a checkpoint of LKDN or LKDN-S"
            )
        return shapes[name]

    copies, features = shape("fea_conv.pw.kernel")[2:]
    if copies != 3 * INPUT_COPIES:
        raise InputError(
            f"not the weights of an LKDN: its first convolution takes {copies} "
            f"channels, an LKDN's takes {3 * INPUT_COPIES}"
        )
    blocks = {m[0] for name in shapes if (m := re.match(r"B\d+\.", name))}
    out = shape("upsampler.conv3.kernel")[-1]
    scale = round((out / 3) ** 0.5)
    if out != 3 * scale**2:
        raise InputError(f"an upsampler of {out} channels: expected 3·s² for a scale s")
    distilled = shape("B1.c1_d.kernel")[-1]
    attention = shape("B1.atten.pointwise.kernel")[-1]
    return {
        "scale": scale,
        "features": features,
        # Their number, not the highest: a gap is then reported as a missing block.
        "num_blocks": len(blocks),
        "distilled": None if distilled == features // 2 else distilled,
        "attention_features": None if attention == features else attention,
        "shallow_block": "RBSB" if "B1.c1_r.rep1x1.kernel" in shapes else "BSB",
        "upsampler": "rep" if "upsampler.conv1x1.kernel" in shapes else "direct",
    }


def check_params(params: Tree, expected: Tree) -> None:
    """Check that a parameter tree has the names and shapes of another.

    Args:
        params: The tree to check.
        expected: The tree of the network, arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        InputError: Missing names (`-`), unexpected names (`+`), wrong shapes (`!`).
    """
    if list(params) == ["params"]:
        raise InputError("a tree of variables: give the one in it, of name params")
    have, want = _shapes(params), _shapes(expected)
    problems = [f"-{name}" for name in want if name not in have]
    problems += [f"+{name}" for name in have if name not in want]
    problems += [
        f"!{name} {list(have[name])} instead of {list(want[name])}"
        for name in want
        if name in have and have[name] != want[name]
    ]
    if problems:
        more = len(problems) - _SHOWN
        raise InputError(
            "the parameters do not fit the network (- missing, + unexpected, ! wrong "
            f"shape): {', '.join(problems[:_SHOWN])}"
            + (f", and {more} more" if more > 0 else "")
        )


def check_finite(params: Tree, source: str = "") -> None:
    """Check that no parameter is infinite or NaN.

    Args:
        params: The tree to check.
        source: What the error begins with.

    Raises:
        InputError: One is.
    """
    leaves: Any = flatten_dict(dict(params)).values()
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise InputError(f"{source}parameters that are not finite; train again")


def _shapes(params: Tree) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = flatten_dict(dict(params), sep=".")
    return {name: tuple(getattr(leaf, "shape", ())) for name, leaf in flat.items()}
