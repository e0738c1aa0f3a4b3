"""The loop as a user runs it: stopped, killed, on several devices."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import lkdn_jax
from lkdn_jax import LKDN, InputError, lkdn_s
from lkdn_jax.data.images import write_image
from lkdn_jax.training import loop
from lkdn_jax.training.config import load_config
from lkdn_jax.training.loop import train_and_evaluate
from lkdn_jax.training.run import Run
from lkdn_jax.training.setup import hold

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny_config.py")
KILLS = int(os.environ.get("LKDN_KILLS", "3"))


@pytest.fixture(scope="module")
def environment():
    """Return an environment in which a program is compiled once, not once a process."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(environment, workdir, *overrides, config=TINY, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [
            sys.executable, "train.py", "--config", str(config),
            "--workdir", str(workdir), *overrides,
        ],
        cwd=ROOT,
        env=environment | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def train(environment, workdir, *overrides, **options):
    code, out, err = finish(start(environment, workdir, *overrides, **options))
    assert code == 0, err
    return out


def refuse(environment, workdir, *overrides, **options):
    code, _, err = finish(start(environment, workdir, *overrides, **options))
    assert code != 0
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(environment, tmp_path_factory, worker_id):
    """Return the workdir of a run that nothing interrupted, one for all workers.

    To be read only: the other worker reads it, too.
    """
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":  # each worker's is a folder in that of the session
        folder = folder.parent
    with FileLock(folder / "whole.lock"):
        if not (folder / "whole" / "report.md").exists():  # written last
            train(environment, folder / "whole", "--validation.folders=photographs")
    return folder / "whole"


def model_bytes(workdir):
    return (workdir / "model.msgpack").read_bytes()


def test_leaves_everything_a_run_should(whole):
    rows = metrics(whole)
    losses = {row["step"]: row for row in rows if "loss" in row}
    assert list(losses) == [4, 8, 12]
    for row in losses.values():
        assert row["learning_rate"] == pytest.approx(5e-3)
        assert row["patches_per_second"] > 0
        assert 0 <= row["seconds_waiting_for_data"] < 100
        assert row["psnr"] > 0
        assert row["grad_norm"] > 0
    assert losses[12]["loss"] < losses[4]["loss"]
    model, _ = lkdn_jax.load(whole / "model.msgpack")
    assert model == lkdn_s(2, features=4, num_blocks=1)
    folded, _ = lkdn_jax.load(whole / "model_folded.msgpack")
    assert folded == LKDN(scale=2, features=4, num_blocks=1)
    report = json.loads((whole / "report.json").read_text())
    mean = report["datasets"]["photographs"]["mean"]
    (validated,) = (row for row in rows if "psnr_y" in row)
    assert mean["psnr_y"] == pytest.approx(validated["psnr_y"], abs=1e-3)
    assert {p.name for p in (whole / "upscaled" / "photographs").iterdir()} == {
        "chelsea.png", "coffee.png", "rocket.png",
    }  # fmt: skip
    best, params = lkdn_jax.load(whole / "model_best.msgpack")
    assert best == model
    _, last = lkdn_jax.load(whole / "model.msgpack")  # of the one validation, the same
    jax.tree.map(np.testing.assert_array_equal, params, last)
    with Image.open(whole / "curves.png") as picture:
        assert picture.size == (1000, 400)
    # The last two, and none of the others: step 12 is the best, too.
    assert {p.name for p in (whole / "checkpoints").iterdir()} >= {"8", "12"}
    assert not (whole / "checkpoints" / "4").exists()
    assert any((whole / "tensorboard").iterdir())


def test_training_again_changes_nothing(environment, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "again")
    out = train(environment, workdir, "--validation.folders=photographs")
    assert "resumed from" in out
    assert "already at step 12 of 12: nothing to train" in out
    assert model_bytes(workdir) == model_bytes(whole)


def test_host_and_device_paths_train_the_same(environment, whole, tmp_path):
    train(environment, tmp_path / "a", "--data.cache=host")
    train(environment, tmp_path / "b", "--data.cache=host", "--data.workers=1")
    assert model_bytes(tmp_path / "a") == model_bytes(tmp_path / "b")
    assert_close(tmp_path / "a", whole, 1e-6)


def assert_close(workdir, other, tolerance):
    ours, theirs = (
        np.concatenate([np.ravel(x) for x in leaves(w)]) for w in (workdir, other)
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def leaves(workdir):
    return jax.tree.leaves(lkdn_jax.load(workdir / "model.msgpack")[1])


def test_stops_on_a_signal_and_resumes_bit_equal(environment, tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        workdir = tmp_path / number.name
        process = start(environment, workdir, "--steps=100000")
        wait_for(process, workdir / "metrics.jsonl")
        process.send_signal(number)
        code, out, err = finish(process)
        assert code == 0, err
        assert f"stopped by {number.name} at step" in out
        stopped = max(
            int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()
        )
        assert f"step {stopped}, saved" in out
        if number == signal.SIGINT:
            continue  # the same code from here on
        steps = stopped + 5
        out = train(environment, workdir, f"--steps={steps}")
        assert "resumed from" in out
        whole = tmp_path / f"{number.name}_whole"
        train(environment, whole, f"--steps={steps}")
        assert model_bytes(workdir) == model_bytes(whole)


def wait_for(process, path):
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size > 0):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps_saved(workdir):
    folder = workdir / "checkpoints"
    return {p.name for p in folder.glob("*") if p.name.isdigit()}


def test_survives_kills_bit_equal(environment, tmp_path):
    last = 20 * KILLS  # room for the steps that each kill lets pass
    steps = (f"--steps={last}", "--checkpoint.every=4", "--log_every=4")
    workdir, rng = tmp_path / "killed", random.Random(0)
    torn = 0
    for i in range(KILLS):
        before = steps_saved(workdir)
        process = start(environment, workdir, *steps)
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
    train(environment, workdir, *steps)
    train(environment, tmp_path / "whole", *steps)
    assert model_bytes(workdir) == model_bytes(tmp_path / "whole")
    rows = [row["step"] for row in metrics(workdir) if "loss" in row]
    assert rows == list(range(4, last + 4, 4))


def test_several_steps_a_dispatch_resume_bit_equal(environment, tmp_path):
    four = ("--data.steps_per_dispatch=4", "--log_every=4", "--validation.every=4")
    train(environment, tmp_path / "whole", *four, "--steps=10")
    train(environment, tmp_path / "parts", *four, "--steps=8")
    out = train(environment, tmp_path / "parts", *four, "--steps=10")
    assert "resumed from" in out
    assert "note: steps was 8, is now 10" in out
    assert model_bytes(tmp_path / "parts") == model_bytes(tmp_path / "whole")


def test_two_devices_and_two_processes_train_as_one(environment, whole, tmp_path):
    train(environment, tmp_path / "two", devices=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for i in range(2):
        cluster = (
            f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={i}",
        )  # fmt: skip
        processes.append(
            start(
                environment,
                tmp_path / "hosts",
                "--multihost",
                "--validation.folders=photographs",
                *cluster,
            )
        )
    results = [finish(process) for process in processes]
    assert [code for code, _, _ in results] == [0, 0], results
    assert "wrote" in results[0][1]
    assert "wrote" not in results[1][1]
    assert len(list((tmp_path / "hosts" / "tensorboard").iterdir())) == 1
    assert_close(tmp_path / "two", whole, 1e-6)
    assert_close(tmp_path / "hosts", whole, 1e-6)


def test_starts_from_weights(environment, whole, tmp_path):
    train(
        environment,
        tmp_path,
        f"--init_from={whole / 'model.msgpack'}",
        "--steps=4",
        "--seed=1",
        "--optimizer.learning_rate=1e-12",
    )
    assert_close(tmp_path, whole, 1e-6)


def test_a_loss_that_is_not_finite(environment, whole, tmp_path):
    error = refuse(environment, tmp_path, "--optimizer.learning_rate=1e30")
    for part in ("not finite at step 0", "batch of seed 0", "checkpoint: none"):
        assert part in error
    assert steps_saved(tmp_path) == set()
    good = shutil.copytree(whole, tmp_path / "good")
    before = steps_saved(good)
    error = refuse(environment, good, "--steps=24", "--optimizer.learning_rate=1e30")
    assert "not finite at step 12" in error
    assert f"last good checkpoint: {good / 'checkpoints' / '12'}" in error
    assert steps_saved(good) == before


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

    run = Run(load_config(TINY), *[Mock() for _ in range(6)])
    with pytest.raises(InputError, match="a data worker was killed"):
        run.next_batch(samples(), done, Mock(), None)
    # Of a worker that is killed no step is lost.
    assert run.checkpoints.save.call_count == run.checkpoints.wait.call_count == done


def test_what_is_cheap_to_check_comes_first(tmp_path):
    for folder in ("a", "b"):
        write_image(tmp_path / folder / "x" / "1.png", np.zeros((40, 40, 3), np.uint8))
    same = f"{tmp_path / 'a' / 'x'},{tmp_path / 'b' / 'x'}"
    missing = "--data.sources=/none"  # never come to
    for override, message in (
        (f"--validation.folders={same}", "two have one name"),
        ("--validation.folders=/none", "/none is no folder"),
        ("--init_from=none.pth", r"none\.pth: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            train_and_evaluate(load_config(TINY, [override, missing]), tmp_path / "r")


def test_validation_images_are_looked_at_first(tmp_path):
    (tmp_path / "empty.png").touch()
    lines, config = [], load_config(TINY, [f"--validation.folders={tmp_path}"])
    with pytest.raises(InputError, match=r"empty\.png"):
        train_and_evaluate(config, tmp_path / "run", lines.append)
    assert lines == []


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


def test_too_little_memory_is_one_line(tmp_path, monkeypatch):
    full = MemoryError()
    monkeypatch.setattr(loop, "make_train_steps", lambda *_: Mock(side_effect=full))
    with pytest.raises(InputError, match=r"out of memory: lower data\.batch_size 4,"):
        train_and_evaluate(load_config(TINY), tmp_path, [].append)


def test_refuses_a_workdir_of_another_network(environment, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "other")
    error = refuse(environment, workdir, "--model.features=6")
    assert "model.features is 4, not 6" in error
    assert model_bytes(workdir) == model_bytes(whole)


def test_a_full_disk_loses_nothing(environment, whole, tmp_path):
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
    out = train(environment, workdir)
    assert f"resumed from {workdir / 'checkpoints' / '8'}\n" in out
    assert model_bytes(workdir) == model_bytes(whole)
