"""Processes that work together, of which one ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lkdn_jax import InputError
from lkdn_jax.training.processes import join_processes

ROOT = Path(__file__).parents[2]

TOGETHER = """
import sys
from lkdn_jax import cli
from lkdn_jax.cli import run
from lkdn_jax.errors import InputError
from lkdn_jax.training.processes import join_processes, lost_process_advice

cli._LEAVE_SECONDS = 1  # what is left after it does not answer

def main():
    from jax.experimental.multihost_utils import process_allgather
    coordinator, index, fails = sys.argv[1:]
    join_processes(coordinator, 2, int(index))
    with lost_process_advice():
        process_allgather(1)
        print("together", flush=True)
        if fails == index:
            raise InputError("no such file here")
        if fails == f"bug {index}":
            raise RuntimeError("a bug")
        while True:
            process_allgather(1)

sys.exit(run(main))
"""


FIRST = """
import sys
from lkdn_jax.cli import run
from lkdn_jax.errors import InputError
from lkdn_jax.training.processes import join_processes, on_first_process

def fail():
    raise InputError("no such file here")

def main():
    join_processes(sys.argv[1], 2, int(sys.argv[2]))
    on_first_process(fail)

sys.exit(run(main))
"""


def test_what_fails_on_the_first_alone_ends_both(coordinator):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST, coordinator, str(index)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert errors[0] == "error: no such file here\n"
    assert errors[1] == "error: process 0 failed: see its error\n"


@pytest.mark.parametrize("how", ["is terminated", "fails", "has a bug"])
def test_one_that_ends_alone_is_one_line_for_the_other(coordinator, how):
    fails = {"fails": "1", "has a bug": "bug 1"}.get(how, "none")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, coordinator, str(i), fails],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            while process.stdout.readline() != "together\n":
                assert process.poll() is None, process.communicate()
        if how == "is terminated":  # jax's preemption service would swallow it
            processes[1].terminate()
        # Left to itself, jax waits for the one that is gone for a minute and a half.
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [1, -signal.SIGTERM if how == "is terminated" else 1], errors
    assert errors[0].startswith("error: a step of all processes failed (UNKNOWN: Gloo")
    assert "did another one end? Start all of them again" in errors[0]
    assert len(errors[0].splitlines()) == 1
    if how == "has a bug":
        assert errors[1].endswith("RuntimeError: a bug\n")
    else:
        assert errors[1] == ("error: no such file here\n" if how == "fails" else "")


ALONE = """
import signal, sys
from lkdn_jax import cli
from lkdn_jax.cli import run
from lkdn_jax.training import processes
from lkdn_jax.training.processes import join_processes

processes._PATIENCE = 1
cli._LEAVE_SECONDS = 1
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs ignore it
sys.exit(run(lambda: join_processes(sys.argv[1], 2, int(sys.argv[2]), wait=3)))
"""


@pytest.mark.parametrize("index", ["0", "1"])
@pytest.mark.parametrize("ends_by", ["itself", "SIGINT"])
def test_one_that_stays_alone_says_so(coordinator, index, ends_by):
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE, coordinator, index],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if ends_by == "SIGINT":
            process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert said == "waiting 3 s for the other processes\n"
    if ends_by == "SIGINT":
        assert (process.returncode, error) == (130, "interrupted\n")
    else:
        assert process.returncode == 1
        assert error.startswith("error: not all processes came within 3 s: start as ")
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (("foo", 2, 0), "--coordinator foo: give host:port"),
        (("foo:1", 0, 0), "--process_id 0: must be at least 0 and below"),
        (("foo:1", 2, -1), "--process_id -1: must be at least 0 and below"),
    ],
)
def test_refuses_a_cluster_that_cannot_be(cluster, message):
    with pytest.raises(InputError, match=message):
        join_processes(*cluster)
