"""Nothing is lost: a run stopped, killed, refused, on a full disk."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from lkdn_jax import InputError
from lkdn_jax.data.images import write_image
from lkdn_jax.training import loop
from lkdn_jax.training.config import load_config
from lkdn_jax.training.loop import train_and_evaluate
from lkdn_jax.training.run import Run
from lkdn_jax.training.setup import create_plan
from lkdn_jax.training.workdir import hold

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny_config.py")
KILLS = int(os.environ.get("LKDN_KILLS", "3"))


@pytest.fixture(scope="module")
def refuse(start):
    """Return a function as `start`'s that gives the one line a run ends with."""

    def refuse(workdir, *overrides):
        process = start(workdir, *overrides)
        _, err = process.communicate(timeout=300)
        assert process.returncode != 0
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        return lines[0]

    return refuse


def model_bytes(workdir):
    return (workdir / "model.msgpack").read_bytes()


def steps_saved(workdir):
    folder = workdir / "checkpoints"
    return {p.name for p in folder.glob("*") if p.name.isdigit()}


def test_training_again_changes_nothing(train, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "again")
    out = train(workdir, "--validation.folders=photographs", "--seed=9")
    assert "resumed from" in out
    assert "already at step 12 of 12: nothing to train" in out
    assert model_bytes(workdir) == model_bytes(whole)
    config = (workdir / "config.json").read_bytes()  # of how it was trained
    assert config == (whole / "config.json").read_bytes()


def test_stops_on_a_signal_and_resumes_bit_equal(start, train, tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        workdir = tmp_path / number.name
        process = start(workdir, "--steps=100000")
        wait_for(process, workdir / "metrics.jsonl")
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert f"stopped by {number.name} at step" in out
        stopped = max(map(int, steps_saved(workdir)))
        assert f"step {stopped}, saved" in out
        if number == signal.SIGINT:
            continue  # the same code from here on
        steps = stopped + 5
        out = train(workdir, f"--steps={steps}")
        assert "resumed from" in out
        whole = tmp_path / f"{number.name}_whole"
        train(whole, f"--steps={steps}")
        assert model_bytes(workdir) == model_bytes(whole)


def wait_for(process, path):
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size > 0):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_signal_to_one_process_stops_all_at_one_step(start_two, tmp_path):
    processes = start_two(tmp_path, "--steps=100000")
    wait_for(processes[0], tmp_path / "metrics.jsonl")
    processes[1].send_signal(signal.SIGTERM)
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    stopped = re.search(r"by a signal to another process at step (\d+)", results[0][0])
    assert stopped is not None, results
    step = int(stopped[1])
    assert step % 4 == 0  # log_every: where the processes ask each other
    assert max(map(int, steps_saved(tmp_path))) == step


def test_one_that_is_lost_ends_all(start_two, tmp_path):
    # No save: there the other would wait for jax to miss the one that is lost, 100 s.
    words = ("--steps=100000", "--checkpoint.every=100000")
    first, lost = start_two(tmp_path, *words, "--validation.every=100000")
    wait_for(first, tmp_path / "metrics.jsonl")
    lost.kill()
    lost.communicate()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert err.startswith("error: a step of all processes failed (UNKNOWN: Gloo"), err
    assert len(err.splitlines()) == 1


def test_survives_kills_bit_equal(start, train, tmp_path):
    last = 20 * KILLS  # room for the steps that each kill lets pass
    steps = (f"--steps={last}", "--checkpoint.every=4", "--log_every=4")
    workdir, rng = tmp_path / "killed", random.Random(0)
    torn = 0
    for i in range(KILLS):
        before = steps_saved(workdir)
        process = start(workdir, *steps)
        # It has resumed and gone on: a new checkpoint is there.
        while not steps_saved(workdir) - before:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        if i % 2:  # at any time
            time.sleep(rng.uniform(0, 0.3))
        else:  # during a save
            while not list((workdir / "checkpoints").glob("*tmp*")):
                assert process.poll() is None
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        torn += bool(list((workdir / "checkpoints").glob("*tmp*")))
    assert torn > 0
    train(workdir, *steps)
    train(tmp_path / "whole", *steps)
    assert model_bytes(workdir) == model_bytes(tmp_path / "whole")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows if "loss" in row] == list(range(4, last + 4, 4))


def test_several_steps_a_dispatch_resume_bit_equal(train, eight_by_four, tmp_path):
    ten = ("--steps=10", "--data.steps_per_dispatch=4")
    train(tmp_path / "whole", *ten)
    parts = shutil.copytree(eight_by_four, tmp_path / "parts")
    out = train(parts, *ten)
    assert "resumed from" in out
    assert "note: steps was 8, is now 10" in out
    assert json.loads((parts / "config.json").read_text())["steps"] == 10
    assert model_bytes(parts) == model_bytes(tmp_path / "whole")


def test_one_process_a_workdir(tmp_path):
    with hold(tmp_path), pytest.raises(InputError, match="another process trains ther"):
        train_and_evaluate(load_config(TINY), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    with hold(tmp_path):  # it is free again
        pass


@pytest.mark.parametrize("done", [0, 1])
def test_a_state_without_a_step_is_not_saved(done):
    def samples():
        raise InputError("a data worker was killed")
        yield

    run = Run(create_plan(load_config(TINY)), *[Mock() for _ in range(6)])
    with pytest.raises(InputError, match="a data worker was killed"):
        run.next_batch(samples(), done, Mock(), None)
    # Of a worker that is killed no step is lost.
    assert run.checkpoints.save.call_count == run.checkpoints.wait.call_count == done


def test_a_loss_that_is_not_finite(refuse, whole, tmp_path):
    error = refuse(tmp_path, "--optimizer.learning_rate=1e30")
    for part in ("not finite at step 0", "batch of seed 0", "checkpoint: none"):
        assert part in error
    assert steps_saved(tmp_path) == set()
    good = shutil.copytree(whole, tmp_path / "good")
    before = steps_saved(good)
    error = refuse(good, "--steps=24", "--optimizer.learning_rate=1e30")
    assert "not finite at step 12" in error
    assert f"last good checkpoint: {good / 'checkpoints' / '12'}" in error
    assert steps_saved(good) == before


def test_a_failed_validation_loses_no_step(tmp_path):
    image = tmp_path / "images" / "a.png"
    write_image(image, np.zeros((40, 40, 3), np.uint8))
    config = load_config(TINY, [f"--validation.folders={image.parent}"])

    def break_image(line):
        if line.startswith("training to step 12"):
            image.write_bytes(b"")

    with pytest.raises(InputError, match=r"a\.png"):
        train_and_evaluate(config, tmp_path / "run", break_image)
    assert steps_saved(tmp_path / "run") == {"8", "12"}


def test_a_last_save_that_fails_leaves_no_results(tmp_path, monkeypatch):
    failed = Mock(side_effect=InputError("cannot write the checkpoint"))
    monkeypatch.setattr(loop.Checkpoints, "wait", failed)
    monkeypatch.setattr(loop.Run, "train", lambda _, state: (state, None))
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        train_and_evaluate(load_config(TINY, ["--steps=4"]), tmp_path, [].append)
    assert not (tmp_path / "model.msgpack").exists()


def test_a_full_disk_loses_nothing(train, environment, whole, tmp_path):
    size = 20_000
    limited = (
        "import resource, runpy, signal, sys;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    workdir = shutil.copytree(whole, tmp_path / "full")
    shutil.rmtree(workdir / "checkpoints" / "12")
    (workdir / "model.msgpack").unlink()
    # What is compiled is read from the cache, but there is no room to write more.
    reading = environment | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
    result = subprocess.run(
        [sys.executable, "-c", limited, "train.py", "--config", str(TINY),
         "--workdir", str(workdir)],
        cwd=ROOT, env=reading, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    (line,) = lines
    assert line.startswith("error: cannot")
    out = train(workdir)
    assert f"resumed from {workdir / 'checkpoints' / '8'}\n" in out
    assert model_bytes(workdir) == model_bytes(whole)


def test_refuses_a_workdir_of_another_network(refuse, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "other")
    error = refuse(workdir, "--model.features=6")
    assert "model.features is 4, not 6" in error
    assert model_bytes(workdir) == model_bytes(whole)


def test_refuses_to_write_over_results_that_have_no_checkpoint(refuse, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "kept")
    shutil.rmtree(workdir / "checkpoints")
    error = refuse(workdir, "--steps=4")
    assert f"{workdir / 'model.msgpack'} is the end of a run, of which no" in error
    for name in ("model.msgpack", "metrics.jsonl", "report.json"):
        assert (workdir / name).read_bytes() == (whole / name).read_bytes()


def test_a_damaged_checkpoint_is_one_line(refuse, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "damaged")
    next((workdir / "checkpoints" / "12" / "default" / "d").iterdir()).write_bytes(b"")
    error = refuse(workdir, "--steps=16")
    assert "checkpoint 12 is damaged, or of another network" in error
