"""Fill a folder so that a reader finds it whole or not at all."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lkdn_jax.errors import InputError

PARTIAL = ".partial"


@contextlib.contextmanager
def partial_folder(target: Path, otherwise: str = "") -> Iterator[Path]:
    """Hold the folder in which a target is being made; wait while another holds it.

    The lock ends with the process, however that ends, and what was in the folder is
    still there for the next one. Whoever waited must look whether the target exists
    by then.

    Args:
        target: What will be made; the folder is its name with `.partial`.
        otherwise: What else may be done where it cannot be written, for the error.

    Yields:
        The folder.

    Raises:
        InputError: A target without a name (`.`, `/`), or the operating system refuses
            (full disk, missing permission), here or in the body.
    """
    if not target.name:
        raise InputError(f"{target} has no name of its own: give a folder in it")
    folder = target.with_name(target.name + PARTIAL)
    try:
        descriptor = _lock(folder)
        try:
            yield folder
        finally:
            if _is_at(descriptor, folder):
                with contextlib.suppress(OSError):
                    folder.rmdir()  # Only if nothing is in it, or nothing was to do.
            os.close(descriptor)
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise InputError(
            f"cannot write {target}: {reason}; check free space and the folder's "
            "permissions and run the same again, what is done stays done" + otherwise
        ) from error


def _lock(folder: Path) -> int:
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        with contextlib.suppress(FileNotFoundError):  # Its holder has removed it.
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            descriptor = os.open(folder, flags)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, folder):
                return descriptor
            os.close(descriptor)  # Its holder has removed it, or given it its name.


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def publish(folder: Path, target: Path) -> None:
    """Give a finished folder its name, once its files have reached the disk.

    Args:
        folder: The finished folder; it holds files only.
        target: Its name, on the same file system; an empty folder is replaced.

    Raises:
        OSError: The operating system refuses.
    """
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    folder.rename(target)
