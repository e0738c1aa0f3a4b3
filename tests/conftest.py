"""Strict flags for every test, and where the reference material is."""

import io
import os
import pickle
import platform
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Most of the suite's time is compilation, and the other worker and the scripts that are
# started compile the same programs again.
_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE)
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(2**32)  # jax then locks the folder
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

from lkdn_jax.runtime import collect_garbage_rarely

# As the scripts do. But memory is not kept: one heap for all threads makes compilation,
# most of the time here, a fifth longer.
collect_garbage_rarely()

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lkdn_jax
from lkdn_jax.models.lkdn import expected_params

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest tests: at the end, one worker would wait for them."""
    longest = ("test_loop.py", "test_resume.py")
    items.sort(key=lambda item: item.path.name not in longest)


@pytest.fixture(scope="session")
def reference() -> Path:
    root = Path(__file__).parents[1]
    folder = root / os.environ.get("LKDN_REFERENCE", "../shared/reference")
    if not (folder / "weights").is_dir():
        pytest.skip(
            f"{folder} has no weights: set LKDN_REFERENCE to the folder with the "
            "published weights and benchmark images"
        )
    return folder


@pytest.fixture(scope="session")
def init() -> Callable[..., Any]:
    """Return a function of a module and an input shape that gives its variables."""

    def init(module: nn.Module, shape: tuple[int, ...] = (1, 8, 8, 3)) -> Any:
        # Drawn by numpy: compiling the initializers would take most of a test's time.
        rng = np.random.default_rng(0)
        if isinstance(module, lkdn_jax.LKDN):  # traced once for equal networks
            shapes: Any = {"params": expected_params(module)}
        else:
            shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
        return jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(-0.4, 0.4, leaf.shape), leaf.dtype),
            shapes,
        )

    return init


@pytest.fixture
def x86_cpu() -> None:
    # Asked of the machine, not of the code under test, which could say no by mistake.
    machine, backend = platform.machine(), jax.default_backend()
    if (machine, backend) not in (("x86_64", "cpu"), ("AMD64", "cpu")):
        pytest.skip(f"of programs for x86-64 CPUs; this is {backend} on {machine}")


@pytest.fixture
def write_pth(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function of a path and an object that writes what `torch.save` would."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_: Any) -> None:
        raise AssertionError("only its name goes into the file")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    storage = type("FloatStorage", (), {"__module__": "torch"})
    monkeypatch.setattr(torch, "FloatStorage", storage, raising=False)
    monkeypatch.setattr(utils, "_rebuild_tensor_v2", rebuild, raising=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Storage:
        def __init__(self, key: str, size: int) -> None:
            self.pid = ("storage", storage, key, "cpu", size)

    class Tensor:
        def __init__(self, array: np.ndarray, key: str) -> None:
            self.array, self.key = array, key

        def __reduce__(self) -> Any:
            array = self.array
            strides = tuple(step // array.itemsize for step in array.strides)
            tensor = Storage(self.key, array.size), 0, array.shape, strides
            return rebuild, (*tensor, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return getattr(obj, "pid", None)

    def write(path: Path, content: Any) -> None:
        arrays: list[np.ndarray] = []

        def tensors(node: Any) -> Any:
            if isinstance(node, dict):
                return OrderedDict((key, tensors(node[key])) for key in node)
            if isinstance(node, np.ndarray):
                arrays.append(np.ascontiguousarray(node, np.float32))
                return Tensor(arrays[-1], str(len(arrays) - 1))
            return node

        data = io.BytesIO()
        Pickler(data, protocol=2).dump(tensors(content))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data.getvalue())
            for i, array in enumerate(arrays):
                archive.writestr(f"archive/data/{i}", array.tobytes())

    return write


@pytest.fixture
def save_weights(tmp_path: Path, init: Callable[..., Any]) -> Callable[..., Path]:
    """Return a function that writes a network, freshly initialized, to a file."""

    def save(model: nn.Module) -> Path:
        path = tmp_path / "small.msgpack"
        lkdn_jax.save(path, model, init(model)["params"])
        return path

    return save
