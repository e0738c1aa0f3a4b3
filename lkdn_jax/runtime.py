"""What a process of ours sets for itself before it imports jax."""

import ctypes
import gc
import os
import sys
from pathlib import Path

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_NEW_OBJECTS = 10_000  # until Python looks for unreachable ones; 700 in Python 3.11


def cache_compilations() -> None:
    """Have jax keep compiled programs in a folder, so that a second run starts at once.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, or `lkdn_jax` in the user's cache; an
    empty variable turns the cache off, and so does a folder that cannot be made.
    """
    name = "JAX_COMPILATION_CACHE_DIR"
    if name in os.environ:
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "lkdn_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home
        return
    os.environ[name] = str(folder)


def keep_freed_memory() -> None:
    """Keep freed memory in the process, where the C library allows it (glibc).

    XLA on CPU allocates the work memory of a program at every call. Given back to the
    system in between, it comes back a page at a time and zeroed: a tenth of the time of
    inference, a seventh of that of a training step. Must run before jax starts its
    threads. Does nothing if the environment tunes malloc itself.
    """
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if tuned or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        # One arena: that of another thread is too small for a whole work memory.
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def collect_garbage_rarely() -> None:
    """Have Python look for unreachable objects less often.

    Imports and tracing make millions of objects that stay, and looking through them
    again and again takes up to a sixth of the time until a network runs.
    """
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
