"""The one exception that stands for a mistake in the input, not in the program."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the user.

    The message is one line that says what was wrong, which rule it broke and what to
    do about it. The scripts print it and exit with status 1. Most else is a bug and
    keeps its traceback; `cli.run` says what does not.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that does not exist, with the nearest that does.

    Args:
        kind: What the name should be the name of.
        name: The name that was given.
        known: The names that exist.

    Returns:
        The error, to be raised.
    """
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}: {hint}use {', '.join(known)}")
