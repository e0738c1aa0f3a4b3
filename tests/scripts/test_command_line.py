"""What all scripts share: how words are read, and how they end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lkdn_jax
from lkdn_jax.cli import console

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("upscale.py", "--wieghts", "x4.pth", "a.png"), "--weights"),
        (("evaluate.py", "--weights=x4.pth", "--data=Set5", "--scle=4"), "--scale"),
        (("train.py", "--config=configs/x4.py", "--workdr=runs"), "--workdir"),
        (("upscale.py", "-weights", "x4.pth", "a.png"), "--weights"),
    ],
)
def test_a_mistyped_option_is_recognized(run, assert_one_line_error, words, near):
    result = run(*words)
    assert_one_line_error(result, "no such option", f"did you mean {near}?")
    assert result.returncode == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("upscale.py", "--weights=x4.pth", "--output=out", ""), "INPUT: is empty"),
        (("train.py", "--config=configs/x4.py", "--workdir="), "--workdir: is empty"),
        (("export.py", "--weights", "", "--output=out"), "--weights: is empty"),
    ],
)
def test_an_empty_word_is_not_this_folder(run, assert_one_line_error, words, message):
    assert_one_line_error(run(*words), f"argument {message}")


def test_words_after_two_dashes_are_no_options(run, assert_one_line_error):
    result = run("upscale.py", "--weights=x4.pth", "--fit=abc", "--", "--wights.png")
    assert_one_line_error(result, "'abc': give width and height")


@pytest.mark.parametrize("platforms", ["nonsense", "cpu,"])
def test_a_platform_that_is_not_there(run, assert_one_line_error, weights, platforms):
    words = ("export.py", "--weights", weights / "x2.msgpack", "--output", "x.msgpack")
    result = run(*words, JAX_PLATFORMS=platforms)
    assert_one_line_error(result, f"JAX_PLATFORMS={platforms}", "unset it")


@pytest.mark.parametrize(
    "words",
    [
        ("upscale.py", "--weights=x4.pth", "--output=out", "a.png"),
        ("evaluate.py", "--weights=x4.pth", "--data=Set5"),
        ("export.py", "--weights=x4.pth", "--output=x4.msgpack"),
        ("train.py", "--config=configs/x4.py", "--workdir=runs"),
    ],
)
def test_outside_the_environment_the_scripts_say_what_to_do(
    run, assert_one_line_error, words
):
    result = run("-S", *words)  # no installed packages
    assert_one_line_error(result, "is not installed", "source .venv/bin/activate")


def test_where_python_has_no_locks_training_says_so(run, assert_one_line_error):
    # filelock, which jax takes if it is there, warns where it finds no locks.
    program = (
        "import filelock, runpy, sys; sys.modules['fcntl'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path('train.py', {}, '__main__')"
    )
    result = run("-c", program, "train.py", "--config=configs/x4.py", "--workdir=runs")
    assert_one_line_error(result, "Python has no fcntl on this system: use Linux")


CLOSED = """
import os, sys
os.close(1)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_script_whose_output_nobody_takes(run, tmp_path, weights):
    words = ["export.py", "--weights", weights / "s_x2.msgpack", "--output"]
    closed = [sys.executable, *map(str, [*words, tmp_path / "a.msgpack"])]
    done = run("-c", CLOSED, *closed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert lkdn_jax.load(tmp_path / "a.msgpack")[0].features == 4
    reader, writer = os.pipe()
    os.close(reader)
    pipe = [sys.executable, *map(str, [*words, tmp_path / "b.msgpack"])]
    done = subprocess.run(
        pipe, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


CTRL_C = """
import signal, sys, time
from lkdn_jax.cli import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs ignore it
def main():
    print("started", flush=True)
    time.sleep(60)
sys.exit(run(main))
"""


def test_ctrl_c_is_one_line():
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "interrupted\n")
    finally:
        process.kill()
    assert process.returncode == 130


LOST = """
import gc, signal, sys, time
from lkdn_jax.cli import run
signal.signal(signal.SIGINT, signal.default_int_handler)
def callback(*_):
    gc.callbacks.remove(callback)
    signal.raise_signal(signal.SIGINT)
def main():
    gc.callbacks.append(callback)
    gc.collect()
    print("went on", flush=True)
    time.sleep(60)
sys.exit(run(main))
"""


def test_ctrl_c_is_not_lost_where_nothing_can_raise(run):
    result = run("-c", LOST)
    assert (result.stdout, result.stderr) == ("went on\n", "interrupted\n")
    assert result.returncode == 130


def test_a_terminal_that_knows_no_unicode(run, tmp_path, weights):
    words = ("export.py", "--weights", weights / "s_x2.msgpack", "--output")
    result = run(*words, tmp_path / "a.msgpack", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("columns", "width"), [("30", 80), ("120", 120)])
def test_a_table_has_the_columns_it_needs(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert console().width == width


def test_what_the_system_refuses_is_one_line(run, assert_one_line_error):
    program = "import sys; from lkdn_jax.cli import run; sys.exit(run(main))"
    program = f"def main(): open('/none/x')\n{program}"
    assert_one_line_error(run("-c", program), "/none/x: No such file", "free space")
