"""Read PyTorch's `.pth` files without PyTorch, and without running what is in them.

A `.pth` is a zip of one pickle, `data.pkl`, and one raw record per storage. A pickle
may call any function it names; this reader knows a few names and refuses all others.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from lkdn_jax.errors import InputError

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
}


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict, as saved by `torch.save`.

    Args:
        path: File in PyTorch's zip format (PyTorch 1.6 or later). The state dict is
            the entry `params_ema`, else `params`, else the whole file.

    Returns:
        Arrays by name, float32.

    Raises:
        InputError: The file is no `.pth`, is damaged, or holds anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _load(archive)
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
    for entry in ("params_ema", "params"):
        if isinstance(content, Mapping) and entry in content:
            content = content[entry]
            break
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, np.ndarray]:
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds no state dict; save model.state_dict()")
    for name, array in content.items():
        if not isinstance(array, np.ndarray):
            raise InputError(
                f"{path}: {name!r} is a {type(array).__name__}, not a tensor; "
                "save the state dict alone or under 'params_ema' or 'params'"
            )
    return {
        str(name).removeprefix("module."): array.astype(np.float32)
        for name, array in content.items()
    }


def _load(archive: zipfile.ZipFile) -> Any:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError("a zip file, but not one that torch.save wrote; use a .pth")
    folder = pickles[0].removesuffix("data.pkl")
    byteorder = f"{folder}byteorder"
    if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
        raise InputError("big-endian tensors; save the file on a little-endian machine")
    with archive.open(pickles[0]) as file:
        return _Unpickler(file, archive, folder).load()  # type: ignore[arg-type]


class _Unpickler(pickle.Unpickler):
    """An unpickler that builds tensors and OrderedDicts, and calls nothing else."""

    def __init__(self, file: BinaryIO, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise InputError(
            f"refused to load {module}.{name}: only float tensors and OrderedDict are "
            "read, since a pickle can run any code; save the state dict alone"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, size = pid
        record = self._archive.getinfo(f"{self._folder}data/{key}")
        if record.compress_type != zipfile.ZIP_STORED:
            raise InputError("compressed tensors; torch.save writes them uncompressed")
        storage = np.frombuffer(self._archive.read(record), dtype)
        if storage.size != size:
            raise InputError(
                f"storage {key} has {storage.size} of {size} elements; the file is "
                "damaged, download it again"
            )
        return storage


def _rebuild_tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...],
    *_: Any,
) -> np.ndarray:  # fmt: skip
    # as_strided reads wherever it is told to: check the far corner first.
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides), default=0) < 0 or (
        math.prod(shape) and last >= storage.size
    ):
        raise InputError("a tensor reaches past its storage; the file is damaged")
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [step * storage.itemsize for step in strides]
    )
    return view.copy()
