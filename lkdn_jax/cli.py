"""What the scripts share: one-line errors, exit codes, a progress bar."""

import _thread
import argparse
import contextlib
import difflib
import importlib.util
import itertools
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lkdn_jax.errors import InputError
from lkdn_jax.progress import Progress
from lkdn_jax.runtime import (
    cache_compilations,
    collect_garbage_rarely,
    keep_freed_memory,
)

if TYPE_CHECKING:
    from rich.console import Console

_NARROWEST = 80  # columns a table needs; narrower terminals wrap its lines
_LEAVE_SECONDS = 5
_AGAIN_SECONDS = 0.02


class ArgumentParser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are one line."""

    def __init__(self, description: str | None) -> None:
        """Create a parser.

        Args:
            description: The script's docstring, shown as it is.
        """
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.register("type", None, _not_empty(str))
        self.register("type", Path, _not_empty(Path))

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help, and exit with status 2."""
        line = self._mistyped() or " ".join(message.split())
        self.exit(2, f"error: {line} (see {self.prog} --help)\n")

    def _mistyped(self) -> str | None:
        # argparse reports what is missing first, which a mistyped option then is.
        known = list(self._option_string_actions)
        for word in itertools.takewhile(lambda word: word != "--", sys.argv[1:]):
            name = word.partition("=")[0]
            letters = name.lstrip("-").lower()
            if name.startswith("-") and letters[:1].isalpha() and name not in known:
                near = difflib.get_close_matches(f"--{letters}", known, 1, 0.7)
                if near:
                    return f"{name}: no such option; did you mean {near[0]}?"
        return None


def _not_empty(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(word: str) -> Any:
        if not word:  # as a path, this folder
            raise argparse.ArgumentTypeError("is empty; is a variable not set?")
        return kind(word)

    return convert


def run(main: Callable[[], None]) -> int:
    """Run a script; bad input becomes one line on standard error.

    Args:
        main: The script. `InputError` and `OSError` are for what the user can mend; any
            other exception is a bug and passes with its traceback. Heavy imports
            belong inside, so that Ctrl-C ends them quietly too, and a package that is
            not installed is one line.

    Returns:
        The exit status: 0, or 1 after an error. Ctrl-C ends the process, status 130.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever started the script closed it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show "×" shows something else instead.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    cache_compilations()
    keep_freed_memory()
    collect_garbage_rarely()
    # Pillow warns of what it reads all the same; what it cannot read is an error.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    # The cache of compiled programs is a help, not a need.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent")
    try:
        with _lost_interrupts_again():
            main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave_others()
        return 1
    except Exception as error:
        reason = _reason(error)
        if reason is not None:
            print(f"error: {reason}", file=sys.stderr, flush=True)
        elif _has_others():
            traceback.print_exc()
        else:
            raise
        _leave_others()
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        # XLA's threads do not survive an orderly exit in the middle of work.
        _end_at_once(130)
    return 0


@contextlib.contextmanager
def _lost_interrupts_again() -> Iterator[None]:
    """Have a Ctrl-C come again that met what cannot raise.

    Python drops what is raised in a finalizer, or where jax is told that Python looks
    for unreachable objects: in one start of ten, while jax is imported.
    """
    previous, main_thread = sys.unraisablehook, threading.get_ident()

    def again() -> None:
        time.sleep(_AGAIN_SECONDS)
        signal.pthread_kill(main_thread, signal.SIGINT)

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # No `threading`: what was left in the middle may hold its lock.
            _thread.start_new_thread(again, ())
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:  # another may stand before it, to the end
            sys.unraisablehook = previous


def _end_at_once(status: int) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def _has_others() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _leave_others() -> None:
    """Leave the processes that this one trains with; if they do not answer, at once.

    They may be gone, or wait for this one in a step. jax would wait for minutes.
    """
    if not _has_others():
        return
    # What was wrong has been said; C++ code may add lines of its own while it ends.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    shutdown = sys.modules["jax"].distributed.shutdown
    leaving = threading.Thread(target=shutdown, daemon=True)
    leaving.start()
    leaving.join(_LEAVE_SECONDS)
    if leaving.is_alive():
        _end_at_once(1)


def _reason(error: Exception) -> str | None:
    """Return what the user can mend, in one line, or None if it is a bug."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        name = "" if error.filename is None else f"{error.filename}: "
        reason = error.strerror or error
        return f"{name}{reason}; check the path, its permissions and the free space"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in sys.stdlib_module_names:
            return f"Python has no {package} on this system: use Linux, macOS or WSL"
        if package not in ("", "lkdn_jax") and not importlib.util.find_spec(package):
            return (
                f"the package {package} is not installed: activate the environment "
                "(source .venv/bin/activate, which `make demo` sets up), or "
                "pip install -r requirements.txt"
            )
    platforms = os.environ.get("JAX_PLATFORMS")
    # Asked again, jax may answer with the devices that it found before the error.
    unknown = "Unable to initialize backend" in str(error)
    if platforms and (unknown or not _has_devices()):
        return (
            f"JAX_PLATFORMS={platforms}: jax finds no such device; unset it or "
            "install jax for that device"
        )
    return None


def _has_devices() -> bool:
    jax = sys.modules.get("jax")
    try:
        return jax is None or bool(jax.devices())
    except Exception:  # noqa: BLE001  jax raises RuntimeError or AssertionError
        return False


def console() -> "Console":
    """Return a console on standard output, wide enough for a table."""
    from rich.console import Console

    found = Console()
    return found if found.width >= _NARROWEST else Console(width=_NARROWEST)


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on standard error, if that is a terminal.

    Yields:
        A function of a stage, the steps done and their total.
    """
    from rich import progress as bar
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with bar.Progress(
        bar.TextColumn("{task.description}"),
        bar.BarColumn(),
        bar.MofNCompleteColumn(),
        bar.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    ) as shown:
        task = shown.add_task("", total=None)

        def update(stage: str, done: int, total: int) -> None:
            shown.update(task, description=escape(stage), completed=done, total=total)

        yield update
