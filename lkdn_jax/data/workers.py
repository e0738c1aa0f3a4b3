"""Work shared among processes that end with the one that started them."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from lkdn_jax.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends the workers.
    warnings.filterwarnings("ignore", module="PIL")  # as `cli.run` does in the parent
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101
    sentinel = parent.sentinel

    def end_with_parent() -> None:
        # Killed, the parent cannot tell; its workers would wait for it forever.
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Apply a function to every item, in several processes.

    Args:
        function: A picklable function.
        items: Its arguments.
        workers: processes; 1 for none beside this one.

    Yields:
        The results, in the order of the items.

    Raises:
        InputError: A process was killed.
    """
    if workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        yield from pool.map(function, items)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, most often for want of memory: run the same "
            "again with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
