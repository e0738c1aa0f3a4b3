"""Write files so that a reader finds the old content or the new, never a half."""

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lkdn_jax.errors import InputError

_ABANDONED = 3600  # seconds without a write after which a hidden file is a leftover


def _temporary_name(target: Path) -> Path:
    # Cut short: the whole name plus a suffix could pass the file system's limit.
    return target.with_name(f".{target.name[:32]}.{secrets.token_hex(8)}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Remove the hidden files of writers that were killed over an hour ago.

    Args:
        folder: Where they wrote; it need not exist.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"\..{1,32}\.[0-9a-f]{16}\.tmp", path.name):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name only once it is complete.

    The content goes to a hidden file in the same folder, reaches the disk, and then
    replaces `path` in one step. If the body raises, the hidden file is removed and
    `path` keeps its old content. Missing parent folders are created. A replaced file
    keeps its permissions; a new one gets what the umask leaves.

    Args:
        path: The file to write; a link is followed.

    Yields:
        A binary file object, open for reading and writing.

    Raises:
        InputError: The operating system refuses (full disk, missing permission, a
            folder of that name), while opening, in the body, or while closing.
    """
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        if target.exists() and not target.is_file():
            raise OSError("a folder or device has that name")
        if target.parent.is_file():
            raise OSError(f"{target.parent} is a file, not a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        name = _temporary_name(target)
        with name.open("x+b") as file:
            temporary = name
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
        temporary = None
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise InputError(
            f"cannot write {path}: {reason}; check free space and the folder's "
            "permissions, or choose another path"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Check, before the work, that files can be written to a folder.

    Args:
        folder: The folder; it need not exist yet.

    Raises:
        InputError: It, or what it would be created in, is no folder or takes no file.
    """
    folder = Path(os.path.realpath(folder))
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not there.is_dir():
        raise InputError(f"{there} is a file, not a folder: choose another folder")
    try:
        name = _temporary_name(there / "try")
        name.touch(exist_ok=False)
        name.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{folder}: cannot be written to: {reason}; choose a folder that is yours"
        ) from error
