"""The one exception that stands for a mistake in the input, not in the program."""


class InputError(ValueError):
    """Bad input from the user.

    The message is one line that says what was wrong, which rule it broke and what to
    do about it. The scripts print it and exit with status 1; everything else is a bug
    and keeps its traceback.
    """
