"""Atomic writes: all or nothing, and errors a user can act on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write, check_folder

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")


def test_writes_and_creates_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "naïve 画像.bin"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


def test_replaces_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failing_body_keeps_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
    # The first to open is the last to close here.
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_fits(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with atomic_write(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


@posix
def test_permissions_follow_the_umask_or_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    old = os.umask(0o027)
    try:
        with atomic_write(path):
            pass
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        with atomic_write(path):
            pass
        assert path.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(old)


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_folder_in_the_way(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="folder or device") as raised,
        atomic_write(tmp_path),
    ):
        pytest.fail("the body must not run")
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(
            InputError, match=r"cannot write .*x\.bin: .*file is a file, not"
        ) as raised,
        atomic_write(tmp_path / "file" / "x.bin"),
    ):
        pytest.fail("the body must not run")
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_folder_that_takes_no_file() -> None:
    # Its permissions allow it all, to root.
    with pytest.raises(InputError, match="/proc/new: cannot be written to"):
        check_folder(Path("/proc/new"))


def test_check_leaves_no_trace(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic_write(sys.argv[1]) as file:
        file.write(bytes(100_000))
except InputError as error:
    print(error)
"""


@posix
def test_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    # A file size limit fails a write the way a full disk does, without filling one.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, str(path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"cannot write {path}: ")
    assert "free space" in line
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
