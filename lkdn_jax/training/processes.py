"""Processes that train together: how they meet, act as one, and lose each other."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lkdn_jax.errors import InputError

Result = TypeVar("Result")

_PATIENCE = 5  # seconds of waiting without a word
# What errors hold where processes lose each other: the libraries that connect CPUs and
# GPUs, and the states of jax's coordination service.
_LOST = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "coordination service")


def join_processes(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    wait: int = 300,
) -> None:
    """Make this process one of several that train together.

    Args:
        coordinator: `host:port` of process 0; None where a cluster that jax knows
            (such as Slurm or Cloud TPU) tells it.
        num_processes: How many there are, with `coordinator`.
        process_id: Which one this is, from 0, with `coordinator`.
        wait: Seconds that the others may come later.

    Raises:
        InputError: Arguments that do not fit each other, no cluster, or some that did
            not come.
    """
    if coordinator and not re.fullmatch(r".+:\d+", coordinator):
        raise InputError(f"--coordinator {coordinator}: give host:port of process 0")
    count, index = num_processes or 0, process_id or 0
    if num_processes is not None and not 0 <= index < count:
        raise InputError(
            f"--process_id {index}: must be at least 0 and below --num_processes "
            f"{count}"
        )
    # It would swallow a SIGTERM that comes before the first step.
    jax.config.update("jax_enable_preemption_service", False)
    joined = _in_background(
        lambda: jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=wait + 60,  # when it is over jax aborts
        )
    )
    if futures.wait([joined], _PATIENCE).not_done:
        print(f"waiting {wait} s for the other processes", flush=True)
    try:
        joined.result(wait)
    except TimeoutError as error:
        raise InputError(
            f"not all processes came within {wait} s: start "
            + (
                "as many as --num_processes says, each with its own --process_id, and "
                "the --coordinator of process 0"
                if coordinator
                else "the same command on every host"
            )
        ) from error
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"cannot join the other processes: {reason}; give --coordinator, "
            "--num_processes and --process_id of every process"
        ) from error


def _in_background(function: Callable[[], None]) -> futures.Future[None]:
    """Call a function in a thread: in C++ code it would not hear a Ctrl-C."""
    future: futures.Future[None] = futures.Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def on_first_process(function: Callable[[], Result]) -> Result | None:
    """Call a function on process 0; all processes wait for it.

    Args:
        function: What to call.

    Returns:
        What it returns on process 0; None on the others.

    Raises:
        Exception: What it raises on process 0; on the others then an InputError.
    """
    result, failure = None, None
    if jax.process_index() == 0:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001  the others must hear of it
            failure = error
    failed = failure is not None
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(failed))
    if failed:
        raise failure or InputError("process 0 failed: see its error")
    return result


def lost_process(error: BaseException | None) -> str:
    """Return how an error says that another process is lost, or nothing."""
    if error is None or jax.process_count() == 1:
        return ""
    text = str(error.__cause__ or error)
    return text.partition("\n")[0] if any(word in text for word in _LOST) else ""


@contextlib.contextmanager
def lost_process_advice() -> Iterator[None]:
    """Say in one line what to do where another process ended.

    Raises:
        InputError: What the processes do together failed.
    """
    try:
        yield
    except Exception as error:
        reason = lost_process(error)
        if not reason:
            raise
        raise InputError(
            f"a step of all processes failed ({reason}): did another one end? Start "
            "all of them again; they resume from the last checkpoint"
        ) from error
