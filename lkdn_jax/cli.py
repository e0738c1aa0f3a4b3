"""What the scripts share: one-line errors, exit codes, a progress bar."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeRemainingColumn as EtaColumn

from lkdn_jax.errors import InputError


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

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help, and exit with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def run(main: Callable[[], None]) -> int:
    """Run a script; bad input becomes one line on standard error.

    Args:
        main: The script. `InputError` is for mistakes of the user; any other exception
            is a bug and passes with its traceback.

    Returns:
        The exit status: 0, 1 after an `InputError`, 130 when interrupted.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress on standard error, if that is a terminal.

    Yields:
        A function of a stage, the steps done and their total.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(
        *columns, EtaColumn(), console=console, transient=True, disable=hidden
    ) as progress:
        task = progress.add_task("", total=None)

        def update(stage: str, done: int, total: int) -> None:
            progress.update(task, description=stage, completed=done, total=total)

        yield update
