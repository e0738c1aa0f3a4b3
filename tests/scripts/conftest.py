"""The scripts as a user runs them, with small networks and images."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lkdn_jax
from lkdn_jax import LKDN, lkdn_s

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that has Python run what the words say, in the project."""

    def run(*words: Any, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def assert_one_line_error() -> Callable[..., None]:
    """Return a function of what `run` returned and of parts of the one line."""

    def check(result: subprocess.CompletedProcess[str], *parts: str) -> None:
        assert result.returncode != 0
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        for part in ("error: ", *parts):
            assert part in lines[0]

    return check


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, init: Callable[..., Any]) -> Path:
    """Return a folder with two small networks for scale 2."""
    folder = tmp_path_factory.mktemp("weights")
    for name, model in (
        ("x2", LKDN(scale=2, features=4, num_blocks=1)),
        ("s_x2", lkdn_s(2, features=4, num_blocks=1)),
    ):
        lkdn_jax.save(folder / f"{name}.msgpack", model, init(model)["params"])
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with two images."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "Sét"
    folder.mkdir()
    for name in "ab":
        image = rng.integers(0, 256, (30, 34, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder
