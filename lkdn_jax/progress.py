"""What a long job tells its caller."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # a stage, the steps done, their total


def ignore(*_: object) -> None:
    """Take any arguments and do nothing: a callback where none is given."""
