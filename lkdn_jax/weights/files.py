"""Load and save networks: `.pth`, `.safetensors` and `.msgpack` files.

A `.msgpack` holds {"format", "architecture", "params"}; a `.safetensors` holds the
architecture in its metadata. Either is all that is needed to use the network.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import serialization
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write
from lkdn_jax.models.lkdn import LKDN, expected_params
from lkdn_jax.weights.published import (
    check_params,
    deduce_architecture,
    from_published,
    to_published,
)
from lkdn_jax.weights.torch_file import read_pth

Names = Literal["ours", "published"]

_FORMAT = "lkdn_jax.1"
# Fields that no file states; of `optimized_from` there is but None in a file.
_NOT_ARCHITECTURE = ("optimized_from", "dtype", "remat", "parent", "name")

# What readers and converters raise for content that is not what it should be.
_DAMAGE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)

Params = dict[str, Any]


def load(path: str | Path) -> tuple[LKDN, Params]:
    """Load a network from a file.

    Args:
        path: A `.pth` as published with the paper (read without PyTorch, running
            nothing it carries), or a `.safetensors` or `.msgpack`, with published or
            our names. Without an architecture in the file it is deduced.

    Returns:
        The network and its parameters, float32, for
        `model.apply({"params": params}, lr)`. How it computes (`dtype`, `remat`) is in
        no file: that is as by default.

    Raises:
        InputError: No such file, an unknown suffix, a damaged file, or parameters that
            do not fit the network, listed by name.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise InputError(f"{path}: weights are read from {known} files")
    if not os.path.isfile(path):  # unlike is_file, it takes any name
        raise InputError(f"{path}: no such file, or a folder; give a file of weights")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions")
    try:
        stated, params = reader(path)
        model = LKDN(**_architecture(stated, deduce_architecture(params)))
        check_params(params, expected_params(model))
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    except InputError as error:
        prefix = "" if str(error).startswith(str(path)) else f"{path}: "
        raise InputError(f"{prefix}{error}") from error
    except _DAMAGE as error:
        raise InputError(
            f"{path}: damaged, or written by another program "
            f"({type(error).__name__}: {error}); export it again"
        ) from error
    return model, params


def save(
    path: str | Path,
    model: LKDN,
    params: Mapping[str, Any],
    *,
    names: Names = "ours",
) -> None:
    """Save a network, whole or not at all.

    Args:
        path: A `.msgpack` or `.safetensors` file; one that is there is replaced. A
            `.msgpack` is read by `flax.serialization.msgpack_restore` alone, too: the
            parameters are under `params`.
        model: The network; its architecture and scale go into the file.
        params: Its parameters.
        names: `published` writes a `.safetensors` under the authors' names and layouts,
            for `load_state_dict` in PyTorch.

    Raises:
        InputError: Another suffix, `published` for a `.msgpack`, parameters that do
            not fit the network, optimized ones, or a file that cannot be written.
    """
    path = Path(path)
    if model.optimized_from is not None:
        raise InputError(
            f"{path}: parameters optimized for inference are not saved; save those "
            "they were made of, and optimize after loading"
        )
    check_params(params, expected_params(model))
    architecture = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in _NOT_ARCHITECTURE
    }
    if names not in get_args(Names):
        raise InputError(
            f"names {names!r}: must be one of {', '.join(get_args(Names))}"
        )
    arrays: Params = jax.tree.map(np.asarray, unfreeze(dict(params)))
    suffix = path.suffix.lower()
    if suffix == ".msgpack" and names == "ours":
        content = serialization.msgpack_serialize(
            {"format": _FORMAT, "architecture": architecture, "params": arrays}
        )
    elif suffix == ".safetensors":
        content = safetensors.numpy.save(
            to_published(model, arrays) if names == "published" else _dotted(arrays),
            {_FORMAT: json.dumps(architecture, default=int)},
        )
    else:
        raise InputError(
            f"{path}: weights are saved as .msgpack or .safetensors, and under the "
            "published names as .safetensors"
        )
    with atomic_write(path) as file:
        file.write(content)


def _architecture(stated: Any, deduced: dict[str, Any]) -> dict[str, Any]:
    """Check the architecture a file states against that of its parameters."""
    if stated is None:
        return deduced
    # The parameters of a BSRB are those of a BSB: only this must be taken on trust.
    if stated.get("shallow_block") == "BSRB" and deduced["shallow_block"] == "BSB":
        deduced = deduced | {"shallow_block": "BSRB"}
    defaults = {
        "distilled": deduced["features"] // 2,
        "attention_features": deduced["features"],
    }
    for name, value in stated.items():
        if value == defaults.get(name):
            value = None
        if name not in deduced or deduced[name] != value:
            raise InputError(
                f"states {name} {value}, which is not that of its parameters; it is "
                "damaged or of a newer version, export it again"
            )
    return deduced


def _dotted(params: Params) -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(array)
        for name, array in flatten_dict(params, sep=".").items()
    }


def _read_pth(path: Path) -> tuple[None, Params]:
    return None, from_published(read_pth(path))


def _read_safetensors(path: Path) -> tuple[dict[str, Any] | None, Params]:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        architecture = json.loads(metadata.get(_FORMAT, "null"))
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a .safetensors file, or its architecture or tensors are "
            f"damaged ({error}); export it again"
        ) from error
    if any(name.endswith(".weight") for name in arrays):
        return architecture, from_published(arrays)
    return architecture, unflatten_dict(arrays, sep=".")


def _read_msgpack(path: Path) -> tuple[dict[str, Any], Params]:
    try:
        content = serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack's errors have no common base
        raise InputError(
            f"{path}: not a .msgpack file, or damaged ({error}); export it again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(
            f"{path}: a .msgpack, but not one that export.py or lkdn_jax.save wrote"
        )
    return content["architecture"], content["params"]


_READERS = {
    ".pth": _read_pth,
    ".safetensors": _read_safetensors,
    ".msgpack": _read_msgpack,
}
