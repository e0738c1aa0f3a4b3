"""Stop a loop between two steps on SIGTERM and Ctrl-C."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], str | None]]:
    """Catch SIGTERM and SIGINT; the second one acts as if nothing had caught it.

    Yields:
        A function that returns the name of the signal that came, or None.
    """
    received: list[str] = []
    old = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in old.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(signal.Signals(number).name)
        restore()

    for number in old:
        signal.signal(number, handle)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()
