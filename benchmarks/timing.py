"""Times several ways in turn in one run, and says how they compare."""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write, check_folder
from lkdn_jax.models import layers
from lkdn_jax.ops.depthwise import Implementation

Run = Callable[[], object]  # returns when the work is done
# What computes ours: the dtype of the network, and the precision of products, which for
# float32 on GPUs is TF32 unless told otherwise. The first is what others are compared
# with, where nothing is asked for.
PRECISIONS: dict[str, tuple[Any, str]] = {
    "bf16": (jnp.bfloat16, "default"),
    "float32": (None, "highest"),
    "tf32": (None, "default"),
}
_DEPTHWISE = ("depthwise_conv", "framed_gelu", "gated")  # as `layers` calls them
PACKAGES = ("jax", "jaxlib", "flax", "torch", "onnxruntime", "openvino")


def interleave(ways: Mapping[str, Run], rounds: int) -> dict[str, dict[str, Any]]:
    """Run all ways in turn, so that a slow minute of the machine is slow for all.

    Args:
        ways: Functions by name; the first is the one the others are compared with.
        rounds: Timed runs of each, after two to warm up.

    Returns:
        By name: `seconds`, the median; `ratio` to the first, the median over rounds;
        and `spread`, the first and third quartile of the ratio.
    """
    for run in ways.values():
        run()
        run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            run()  # once untimed: threads of the way before it may still spin
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    first = np.array(seconds[next(iter(ways))])
    result = {}
    for name, values in seconds.items():
        ratios = np.array(values) / first
        result[name] = {
            "seconds": float(np.median(values)),
            "ratio": float(np.median(ratios)),
            "spread": [float(q) for q in np.quantile(ratios, (0.25, 0.75))],
        }
    return result


def is_needed(name: str) -> bool:
    """Say whether nothing can be timed without this way: ours, as it is by itself."""
    return name in {f"ours {precision}" for precision in PRECISIONS}


def first_run(name: str, run: Run) -> Any:
    """Run a way for the first time; None, and a line, if it fails and is not needed."""
    try:
        return run()
    except Exception as error:
        if is_needed(name):
            raise
        print(f"{name} does not run: {' '.join(str(error).split())[:300]}")
        return None


def print_table(title: str, result: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what `interleave` returned."""
    first = next(iter(result))
    print(f"\n{title}\n{'':44}{'ms':>9}  time ÷ {first}'s (quartiles)")
    for name, row in result.items():
        low, high = row["spread"]
        print(
            f"{name:44}{row['seconds'] * 1e3:9.2f}  {row['ratio']:6.3f} "
            f"({low:.3f} … {high:.3f})"
        )


def precisions(asked: Sequence[str] | None) -> list[str]:
    """Return the precisions to time, the one to compare with first.

    Args:
        asked: Some of `PRECISIONS`, or None for all that the device has: a CPU has
            float32 alone.

    Returns:
        What is asked for, and float32, with which the others are checked.
    """
    known = ["float32"] if jax.default_backend() == "cpu" else list(PRECISIONS)
    return list(dict.fromkeys([*(asked or known), "float32"]))


@contextmanager
def depthwise(implementation: Implementation | None) -> Iterator[None]:
    """Have the network take this implementation of depthwise convolutions while traced.

    Args:
        implementation: As the argument of that name; None: as chosen by platform.
    """
    chosen = {name: getattr(layers, name) for name in _DEPTHWISE}
    for name, function in chosen.items():
        setattr(layers, name, partial(function, implementation=implementation))
    jax.clear_caches()  # of what was traced with another
    try:
        yield
    finally:
        for name, function in chosen.items():
            setattr(layers, name, function)
        jax.clear_caches()


def missing(packages: tuple[str, ...]) -> list[str]:
    """Say which peers are not installed, and return them."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    for name in absent:
        print(f"missing peer: {name} (pip install {name})")
    return absent


def is_reduced(name: str) -> bool:
    """Say whether a way of this name computes in less than float32."""
    return bool({"bf16", "tf32"} & set(name.split()))


def device_rates(precision: str) -> dict[str, float]:
    """Measure what the device can do.

    Args:
        precision: One of `PRECISIONS`, for the products.

    Returns:
        `copy`, bytes read and written a second; `product`, operations a second of a
        large matrix product.
    """
    accelerator = jax.default_backend() != "cpu"
    x = jnp.ones((1 << (28 if accelerator else 24),), jnp.float32)
    add = jax.jit(lambda x: x + 1)
    rates = {"copy": 2 * x.nbytes / _best(lambda: add(x))}
    n = 8192 if accelerator else 2048
    dtype, products = PRECISIONS[precision]
    # Of ones a product would be faster: a card that flips fewer bits clocks higher.
    a = jax.random.normal(jax.random.key(0), (n, n), dtype or jnp.float32)
    product = jax.jit(partial(jnp.matmul, precision=products))
    return rates | {"product": 2 * n**3 / _best(lambda: product(a, a))}


def environment() -> dict[str, Any]:
    """Return the date, the device, versions and the command, for a record."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "python": platform.python_version(),
        "versions": {
            name: _version(name)
            for name in PACKAGES
            if importlib.util.find_spec(name) is not None
        },
        "command": _command(sys.argv),
    }


def _command(words: list[str]) -> str:
    """Return what to type in the project's folder; where it was written is no part."""
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--output")
    _, options = output.parse_known_args(words[1:])
    script = os.path.relpath(words[0], Path(__file__).parents[1])
    return " ".join(["python", script, *options])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # its package has another name, as onnxruntime-gpu
        return getattr(importlib.import_module(name), "__version__", "unknown")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the option `--output`, the file for `write`, checked before the work."""

    def output(word: str) -> Path:
        path = Path(word)
        try:
            check_folder(path.absolute().parent)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"{path} is a folder; choose a file in it")
        if path.exists() and not path.is_file():
            raise argparse.ArgumentTypeError(f"{path} is a device; choose a file")
        return path

    parser.add_argument("--output", type=output, help="JSON file to write")


def write(path: Path | None, record: Mapping[str, Any]) -> None:
    """Write a record and the environment as JSON, if a path is given."""
    if path is not None:
        with atomic_write(path) as file:
            file.write(json.dumps(environment() | dict(record), indent=2).encode())


def _best(run: Callable[[], Any]) -> float:
    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run())
        return time.perf_counter() - start

    return min(once() for _ in range(8))
