"""Configurations: a Python file with `get_config()`, and overrides by name."""

import ast
import contextlib
import difflib
import re
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lkdn_jax.errors import InputError

Config = Any  # a ConfigDict, whose attributes no type checker knows


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    options: Sequence[str] = (),
    default: str | Path | None = None,
) -> Config:
    """Load a configuration.

    Args:
        path: A Python file that defines `get_config()`.
        overrides: `--field=value`, or `--field` and `value`, with dots between the
            parts of a field: `--model.features=48`. Tuples are written `a,b`.
        options: What the command takes besides, without dashes: a mistyped override may
            be meant as one of these.
        default: A configuration whose fields, and no others, it must have, each of the
            same type.

    Returns:
        The configuration.

    Raises:
        InputError: No such file, one that does not run, an unknown field (with the
            nearest name), a field that is not there, or a value of another type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a config such as configs/x4.py")
    config = _run(path)
    like = config if default is None else _run(Path(default))
    _check_fields(path, config, like)
    fields = _fields(like)
    optional = [field for field in fields if field_value(like, field) is None]
    for field, text in _pairs(overrides, fields, options):
        _override(config, field, text, optional=field in optional)
    return config.lock()


def field_value(config: Config, field: str) -> Any:
    """Return the value of a field, with dots between its parts."""
    section, name = _section(config, field)
    return section[name]


@contextlib.contextmanager
def naming_fields(config: Config) -> Iterator[None]:
    """Make an error that begins with a field's name begin with its section's, too."""
    try:
        yield
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        named = [field for field in _fields(config) if field.split(".")[-1] == name]
        if len(named) != 1:
            raise
        raise InputError(f"{named[0]} {rest}") from error


def _section(config: Config, field: str) -> tuple[Config, str]:
    *parents, name = field.split(".")
    for parent in parents:
        config = config[parent]
    return config, name


def _run(path: Path) -> Config:
    beside = str(path.absolute().parent)  # where its own imports may be
    sys.path.append(beside)
    try:
        namespace = runpy.run_path(str(path))
        config = namespace["get_config"]() if "get_config" in namespace else None
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        # A field that is not there: ml_collections prints all that are, in quotes.
        long = r"['\"]?(.*?)\s*Other fields present.*?(Did you mean.*?)?['\"]?"
        known = re.fullmatch(long, str(error), re.S)
        reason = " ".join(filter(None, known.groups())) if known else error
        raise InputError(
            f"{path}: {type(error).__name__}: {reason}; a config is Python like "
            "configs/x4.py"
        ) from error
    finally:
        sys.path.remove(beside)
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{path}: no get_config() that returns a ConfigDict; see configs/default.py"
        )
    return config


def _check_fields(path: Path, config: Config, default: Config) -> None:
    fields, known = _fields(config), _fields(default)
    for field in fields:
        if field not in known:
            near = _nearest(field, known)
            raise InputError(f"{path}: {field} is no field; did you mean {near}?")
    if missing := [field for field in known if field not in fields]:
        raise InputError(
            f"{path}: has no {', '.join(missing[:3])}{', …' if missing[3:] else ''}; "
            "begin with what get_config() of configs/default.py returns"
        )
    for field in fields:
        kind, expected = _kind(config, field), _kind(default, field)
        if kind is not expected:
            raise InputError(
                f"{path}: {field} is of type {kind.__name__}, not {expected.__name__}"
            )


def _kind(config: Config, field: str) -> type:
    section, name = _section(config, field)
    return section.get_type(name)


def _pairs(
    words: Sequence[str], fields: Sequence[str], options: Sequence[str]
) -> list[tuple[str, str]]:
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise InputError(f"{word!r}: overrides are written --field=value")
        field, equals, text = word[2:].partition("=")
        if field not in fields:
            near = _nearest(field, [*fields, *options])
            raise InputError(f"--{field}: no such field; did you mean --{near}?")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{word}: a value is missing; write {word}=value")
            text = rest.pop(0)
        pairs.append((field, text))
    return pairs


def _nearest(name: str, known: Sequence[str]) -> str:
    # Of the same section if there is one; `lr` is near `learning_rate`, too.
    section, _, last = name.rpartition(".")

    def likeness(field: str) -> float:
        end = field.rpartition(".")[2]
        initials = "".join(word[:1] for word in end.split("_"))
        pairs = ((name, field), (last, end), (last, initials))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    inside = [field for field in known if section and field.startswith(f"{section}.")]
    return max(inside or known, key=likeness)


def _fields(config: Config, prefix: str = "") -> list[str]:
    names = []
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            names += _fields(value, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names


def _override(config: Config, field: str, text: str, *, optional: bool) -> None:
    section, name = _section(config, field)
    kind = section.get_type(name)
    try:
        section[name] = None if optional and text == "None" else _parse(text, kind)
    except (ValueError, TypeError, SyntaxError) as error:
        raise InputError(
            f"--{field}={text}: not a value of type {kind.__name__}"
        ) from error


def _parse(text: str, kind: type) -> Any:
    if kind is str:
        return text
    if kind is tuple:
        whole = _literal(text)
        if isinstance(whole, tuple | list):  # with brackets, or of several numbers
            return tuple(whole)
        return tuple(_literal(part) for part in text.split(",") if part)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    value = ast.literal_eval(text)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
