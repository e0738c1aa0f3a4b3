"""Read PyTorch's `.pth` files without PyTorch, and without running what is in them.

A `.pth` is a zip of one pickle, `data.pkl`, and one raw record per storage. A pickle
may call any function it names; this reader knows a few names and refuses all others.
The pickle only describes tensors; they are read, and checked, after it.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from lkdn_jax.errors import InputError

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
}


class _Storage(NamedTuple):
    kind: Any
    key: Any
    size: Any


class _Tensor(NamedTuple):
    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict, as saved by `torch.save`.

    Args:
        path: File in PyTorch's zip format (PyTorch 1.6 or later). The state dict is
            the entry `params_ema`, else `params`, else the whole file.

    Returns:
        Arrays by name, float32.

    Raises:
        InputError: The file is no `.pth`, is damaged, or holds anything but float
            tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"{path}: not a .pth file in the zip format of PyTorch 1.6 or later "
            f"({error}); download it again or save it with a newer PyTorch"
        ) from error
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise InputError(
            f"{path}: its pickle is damaged ({type(error).__name__}: {error}); "
            "download the file again"
        ) from error


def _read(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError("a zip file, but not one that torch.save wrote; use a .pth")
    # What is not compressed cannot unfold to more than the file has.
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise InputError("compressed records; torch.save writes them uncompressed")
    folder = pickles[0].removesuffix("data.pkl")
    byteorder = f"{folder}byteorder"
    if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
        raise InputError("big-endian tensors; save the file on a little-endian machine")
    with archive.open(pickles[0]) as file:
        content = _Unpickler(file).load()
    for entry in ("params_ema", "params"):
        if isinstance(content, Mapping) and entry in content:
            content = content[entry]
            break
    tensors = _tensors(content)
    storages = {
        tensor.storage: _load_storage(archive, folder, tensor.storage)
        for tensor in tensors.values()
    }
    return {
        name.removeprefix("module."): _view(tensor, storages[tensor.storage])
        for name, tensor in tensors.items()
    }


def _tensors(content: Any) -> dict[str, _Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise InputError("holds no state dict; save model.state_dict()")
    for name, tensor in content.items():
        if not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
            raise InputError(
                f"{name!r} is a {type(tensor).__name__.lstrip('_')}, not a tensor; "
                "save the state dict alone or under 'params_ema' or 'params'"
            )
    sizes = {tensor.storage: tensor.storage.size for tensor in content.values()}
    if sum(math.prod(tensor.shape) for tensor in content.values()) > sum(
        sizes.values()
    ):
        raise InputError("its tensors overlap or are expanded; save contiguous ones")
    return {str(name): tensor for name, tensor in content.items()}


class _Unpickler(pickle.Unpickler):
    """An unpickler that describes tensors and builds dicts, and calls nothing else.

    What a name stands for is made anew or cannot be changed: a pickle can set the state
    of what it was given, and that of a dtype would be changed for the whole process.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *parts: _Tensor(*parts[:4])
        if module == "torch" and name in _DTYPES:
            return name
        raise InputError(
            f"refused to load {module}.{name}: only float tensors and OrderedDict are "
            "read, since a pickle can run any code; save the state dict alone"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, size = pid
        return _Storage(kind, key, size)


def _load_storage(
    archive: zipfile.ZipFile, folder: str, storage: _Storage
) -> np.ndarray:
    if storage.kind not in _DTYPES:
        raise InputError(f"storage of {storage.kind}: only float tensors are read")
    dtype = _DTYPES[storage.kind]
    data = np.frombuffer(archive.read(f"{folder}data/{storage.key}"), dtype)
    if data.size != storage.size:
        raise InputError(
            f"storage {storage.key} has {data.size} of {storage.size} elements; the "
            "file is damaged, download it again"
        )
    return data


def _view(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    item = storage.itemsize
    strides = [step * item for step in tensor.strides]
    try:
        # Unlike as_strided, this refuses to leave the storage.
        view = np.ndarray(
            tensor.shape, storage.dtype, storage, tensor.offset * item, strides
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            "a tensor reaches past its storage; the file is damaged"
        ) from error
    return view.astype(np.float32)
