import gc
import os
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
