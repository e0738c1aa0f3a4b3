"""The folder of a run: its configuration, and one process at a time."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write, check_folder
from lkdn_jax.training.config import Config

_NOT_ARCHITECTURE = ("dtype", "remat")
# What a run writes after its configuration.
_WRITTEN = (
    "model_best.msgpack", "model_folded.msgpack", "metrics.jsonl", "report.json",
    "report.md", "curves.png", "upscaled", "tensorboard",
)  # fmt: skip


def check_workdir(config: Config, workdir: Path) -> list[str]:
    """Check that a folder is new or holds a run of this network.

    Args:
        config: As in configs/default.py.
        workdir: The folder.

    Returns:
        A line for each other field in which the run there differs.

    Raises:
        InputError: It holds a run of another network, or cannot be written to.
    """
    check_folder(workdir)
    path = workdir / "config.json"
    if not path.is_file():
        return []
    try:
        old = _flat(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged: remove it to go on, or choose another --workdir"
        ) from error
    new = _flat(json.loads(config.to_json()))
    lines = []
    for name, value in new.items():
        if old.get(name) == value:
            continue
        section, _, field = name.partition(".")
        architecture = section == "model" and field not in _NOT_ARCHITECTURE
        if architecture or name == "optimizer.name":
            raise InputError(
                f"{workdir} holds a run whose {name} is {old.get(name)}, not {value}; "
                "choose another --workdir"
            )
        adan = new["optimizer.name"] == "adan"
        if name == "optimizer.weight_decay" and adan and 0 in (old.get(name), value):
            raise InputError(
                f"{workdir} holds a run of {name} {old.get(name)}, and Adan's state "
                "with decay is not that without: keep it, or choose another --workdir"
            )
        line = f"{name} was {old.get(name)!r}, is now {value!r}"
        if name == "init_from":
            line += " (of no effect once there is a checkpoint)"
        lines.append(line)
    return lines


def check_no_results(workdir: Path) -> None:
    """Check that a run that begins would not write over what is no part of it.

    Args:
        workdir: The folder, which has no checkpoint.

    Raises:
        InputError: It has a network, or files of a run's names and no configuration.
    """
    path = workdir / "model.msgpack"
    if path.exists():
        raise InputError(
            f"{path} is the end of a run, of which no checkpoint is there to go on "
            "from: choose another --workdir, or move it away"
        )
    if (workdir / "config.json").exists():
        return  # that of a run which ended before its first checkpoint
    for path in (workdir / name for name in _WRITTEN):
        if path.exists():
            raise InputError(
                f"{path} is of no run, for there is no config.json, and would be "
                "written over: choose another --workdir, or move it away"
            )


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Keep others from training in a folder; ends with the process at the latest.

    Args:
        workdir: The folder; made if it is not there.

    Raises:
        InputError: Another process trains there.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{workdir}: another process trains there; wait for its end or choose "
                "another --workdir"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield


def write_config(config: Config, workdir: Path) -> None:
    """Note the configuration of a run in its folder, as `config.json`."""
    with atomic_write(workdir / "config.json") as file:
        file.write((json.dumps(json.loads(config.to_json()), indent=2) + "\n").encode())


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
