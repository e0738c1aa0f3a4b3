"""train.py as a user runs it, and one finished run that tests compare with."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny_config.py")


@pytest.fixture(scope="session")
def configs() -> Path:
    """Return the folder of the recipes."""
    return ROOT / "configs"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Return an environment in which a program is compiled once, not once a process."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts train.py with the tiny config and overrides."""

    def start(
        workdir: Path, *overrides: str, devices: int = 1
    ) -> subprocess.Popen[str]:
        flags = f"--xla_force_host_platform_device_count={devices}"
        return subprocess.Popen(
            [
                sys.executable, "train.py", "--config", str(TINY),
                "--workdir", str(workdir), *overrides,
            ],
            cwd=ROOT,
            env=environment | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    return start


@pytest.fixture
def coordinator() -> str:
    """Return an address that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def start_two(
    start: Callable[..., subprocess.Popen[str]], coordinator: str
) -> Callable[..., list[subprocess.Popen[str]]]:
    """Return a function that starts two processes that train in one workdir."""

    def start_two(workdir: Path, *overrides: str) -> list[subprocess.Popen[str]]:
        flags = "--multihost", f"--coordinator={coordinator}", "--num_processes=2"
        return [
            start(workdir, *overrides, *flags, f"--process_id={i}") for i in range(2)
        ]

    return start_two


@pytest.fixture(scope="session")
def train(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Return a function as `start`'s that gives what a successful run printed."""

    def train(workdir: Path, *overrides: str, devices: int = 1) -> str:
        process = start(workdir, *overrides, devices=devices)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out

    return train


@pytest.fixture(scope="session")
def train_once(
    train: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[..., Path]:
    """Return a function that trains in a workdir of that name, once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":  # each worker's is a folder in that of the session
        folder = folder.parent

    def train_once(name: str, *overrides: str) -> Path:
        with FileLock(folder / f"{name}.lock"):
            if not (folder / f"{name}.done").exists():
                train(folder / name, *overrides)
                (folder / f"{name}.done").touch()
        return folder / name

    return train_once


@pytest.fixture(scope="session")
def whole(train_once: Callable[..., Path]) -> Path:
    """Return the workdir of a run that nothing interrupted; to be read only."""
    return train_once("whole", "--validation.folders=photographs")


@pytest.fixture(scope="session")
def eight_by_four(train_once: Callable[..., Path]) -> Path:
    """Return that of one of 8 steps, 4 in a program; to be read only."""
    return train_once("eight_by_four", "--steps=8", "--data.steps_per_dispatch=4")
