import gc
import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from lkdn_jax.runtime import cache_compilations, collect_garbage_rarely

NAME = "JAX_COMPILATION_CACHE_DIR"


@pytest.mark.parametrize("home", ["HOME", "XDG_CACHE_HOME"])
def test_keeps_programs_in_the_users_cache(tmp_path, monkeypatch, home):
    for name in (NAME, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(home, str(tmp_path))
    cache_compilations()
    folder = tmp_path / (".cache" if home == "HOME" else "") / "lkdn_jax" / "compiled"
    assert Path(os.environ[NAME]) == folder
    assert folder.is_dir()


@pytest.mark.parametrize("chosen", ["", "/elsewhere"])
def test_leaves_a_choice_alone(tmp_path, monkeypatch, chosen):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(NAME, chosen)
    cache_compilations()
    assert os.environ[NAME] == chosen
    assert not any(tmp_path.iterdir())


def test_does_without_where_no_folder_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv(NAME, raising=False)
    cache_compilations()
    assert NAME not in os.environ


def test_looks_for_unreachable_objects_less_often(request):
    request.addfinalizer(partial(gc.set_threshold, *gc.get_threshold()))
    gc.set_threshold(700, 11, 12)
    collect_garbage_rarely()
    assert gc.get_threshold() == (10_000, 11, 12)


FAULTS = """
import resource, sys
from lkdn_jax.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def fill():
    b"x" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = fill()
for _ in range(10):
    last = fill()
print(last - first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc")
def test_keeps_freed_memory():
    env = {name: x for name, x in os.environ.items() if not name.startswith("MALLOC_")}
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, way],
                cwd=Path(__file__).parents[1],
                env=env | {"LD_PRELOAD": ""},  # of another malloc
                capture_output=True,
                check=True,
            ).stdout
        )
        for way in ("keep", "give back")
    )
    assert given_back > 200  # pages of 4 kB, or of 2 MB
    assert kept < given_back / 10
