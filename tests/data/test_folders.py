"""Folders that are there whole or not at all, whoever else makes them."""

import errno
import threading
import time

import pytest

from lkdn_jax import InputError
from lkdn_jax.data import folders
from lkdn_jax.data.folders import partial_folder, publish


def test_a_folder_is_published_whole(tmp_path):
    target = tmp_path / "done"
    with partial_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
        publish(folder, target)
    assert [p.name for p in tmp_path.iterdir()] == ["done"]


def test_a_failed_folder_stays_for_the_next(tmp_path):
    def fill():
        with partial_folder(tmp_path / "done") as folder:
            (folder / "a").write_text("1")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*done: No space left"):
        fill()
    with partial_folder(tmp_path / "done") as folder:
        assert (folder / "a").read_text() == "1"


def test_who_waited_gets_a_folder_of_its_own(tmp_path):
    target, found = tmp_path / "done", []

    def wait():
        with partial_folder(target) as folder:
            (folder / "b").write_text("2")
            found.append(sorted(path.name for path in folder.iterdir()))

    waiting = threading.Thread(target=wait)
    with partial_folder(target) as folder:
        waiting.start()
        time.sleep(0.3)  # for it to wait, without which this would show nothing
        (folder / "a").write_text("1")
        publish(folder, target)
    waiting.join()
    assert found == [["b"]]
    assert [path.name for path in target.iterdir()] == ["a"]


def test_the_folder_of_the_next_is_not_removed(tmp_path):
    with partial_folder(tmp_path / "done") as folder:
        publish(folder, tmp_path / "done")
        folder.mkdir()  # as one who comes then does
    assert folder.is_dir()


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with partial_folder(tmp_path / "done") as folder:
        publish(folder, tmp_path / "done")
    assert [p.name for p in tmp_path.iterdir()] == ["done"]


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "done.partial").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot write .*done: Not a directory"),
        partial_folder(tmp_path / "done"),
    ):
        raise AssertionError
