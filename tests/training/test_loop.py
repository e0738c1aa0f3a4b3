"""The loop as a user runs it: what it leaves, on several devices, what it checks."""

import json
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from PIL import Image

import lkdn_jax
from lkdn_jax import LKDN, InputError, lkdn_s
from lkdn_jax.data.images import write_image
from lkdn_jax.training import loop
from lkdn_jax.training.config import load_config
from lkdn_jax.training.loop import train_and_evaluate
from lkdn_jax.training.writer import read_metrics

TINY = Path(__file__).with_name("tiny_config.py")


def test_leaves_everything_a_run_should(whole):
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
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
    assert report["weights"] == str(whole / "model_folded.msgpack")
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


def test_host_and_device_paths_train_the_same(train, whole, tmp_path):
    train(tmp_path / "a", "--data.cache=host", "--log_every=5")
    train(tmp_path / "b", "--data.cache=host", "--data.workers=1")
    threads, processes = (tmp_path / name / "model.msgpack" for name in "ab")
    assert threads.read_bytes() == processes.read_bytes()
    assert_close(tmp_path / "a", whole, 1e-6)  # on the device: `test_setup.py`
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(json.loads, lines) if "loss" in row]
    assert steps == [5, 10, 12]  # the last steps, too


def assert_close(workdir, other, tolerance):
    ours, theirs = (
        np.concatenate([np.ravel(x) for x in leaves(w)]) for w in (workdir, other)
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def leaves(workdir):
    return jax.tree.leaves(lkdn_jax.load(workdir / "model.msgpack")[1])


def test_two_devices_and_two_processes_train_as_one(start_two, train, whole, tmp_path):
    train(tmp_path / "two", devices=2)
    hosts = tmp_path / "hosts"
    processes = start_two(hosts, "--validation.folders=photographs")
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert "wrote" in results[0][0]
    assert "wrote" not in results[1][0]
    assert len(list((hosts / "tensorboard").iterdir())) == 1
    assert_close(tmp_path / "two", whole, 1e-6)
    assert_close(hosts, whole, 1e-6)


def test_two_processes_take_several_steps_in_one_program(
    start_two, eight_by_four, tmp_path
):
    two = start_two(tmp_path, "--steps=8", "--data.steps_per_dispatch=4")
    results = [process.communicate(timeout=300) for process in two]
    assert [process.returncode for process in two] == [0, 0], results
    assert_close(tmp_path, eight_by_four, 1e-6)


def test_starts_from_weights(train, whole, tmp_path):
    train(
        tmp_path,
        f"--init_from={whole / 'model.msgpack'}",
        "--steps=4",
        "--seed=1",
        "--optimizer.learning_rate=1e-12",
        "--validation.folders=photographs",
    )
    assert_close(tmp_path, whole, 1e-6)
    # What it begins with is validated, too, and no step was better.
    (end,), (start, _) = (
        [(row["step"], row["psnr_y"]) for row in read_metrics(run) if "psnr_y" in row]
        for run in (whole, tmp_path)
    )
    assert start == (0, end[1])
    best, begun_with = tmp_path / "model_best.msgpack", whole / "model.msgpack"
    assert best.read_bytes() == begun_with.read_bytes()
    assert (tmp_path / "checkpoints" / "0").is_dir()


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


@pytest.mark.parametrize(("decay", "few"), [(0.9, True), (0.7, False)])
def test_says_that_an_average_is_mostly_the_beginning(tmp_path, decay, few):
    words = [f"--ema_decay={decay}", "--steps=12", "--data.sources=none"]
    lines, config = [], load_config(TINY, words)
    with pytest.raises(InputError, match="none does not exist"):
        train_and_evaluate(config, tmp_path / "run", lines.append)
    assert any("12 steps are few for ema_decay" in line for line in lines) is few


def test_validation_images_are_looked_at_first(tmp_path):
    (tmp_path / "empty.png").touch()
    lines, config = [], load_config(TINY, [f"--validation.folders={tmp_path}"])
    with pytest.raises(InputError, match=r"empty\.png"):
        train_and_evaluate(config, tmp_path / "run", lines.append)
    assert lines == []


def test_too_little_memory_is_one_line(tmp_path, monkeypatch):
    full = MemoryError()
    monkeypatch.setattr(loop, "make_train_steps", lambda *_: Mock(side_effect=full))
    with pytest.raises(InputError, match=r"out of memory: lower data\.batch_size 4,"):
        train_and_evaluate(load_config(TINY), tmp_path, [].append)
