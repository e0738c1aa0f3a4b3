"""What the benchmarks report is what the clock and the networks say."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import check_device, inference, timing, training_step
from benchmarks.roofline import roofline
from lkdn_jax import LKDN, InputError
from lkdn_jax.models.lkdn import draw_params

ROOT = Path(__file__).parents[1]


def test_ways_run_in_turn_and_are_compared_round_by_round(monkeypatch):
    now, calls = 0.0, []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)

    def way(name, *seconds):
        def run():
            nonlocal now
            calls.append(name)
            now += seconds[(calls.count(name) // 2 - 2) % len(seconds)]

        return run

    # Seconds of the timed runs, every second one after two to warm up.
    result = timing.interleave({"a": way("a", 1, 2, 4), "b": way("b", 3, 4, 2)}, 3)
    assert "".join(calls) == "aabb" + 3 * "aabb"
    assert result["a"] == {"seconds": 2.0, "ratio": 1.0, "spread": [1.0, 1.0]}
    assert result["b"] == {"seconds": 3.0, "ratio": 2.0, "spread": [1.25, 2.5]}


def test_what_fails_is_left_out_unless_it_is_ours(capsys):
    def fail():
        raise RuntimeError("no\nkernel")

    assert timing.first_run("torch", fail) is None
    assert capsys.readouterr().out == "torch does not run: no kernel\n"
    assert timing.first_run("torch", lambda: 3) == 3
    with pytest.raises(RuntimeError):
        timing.first_run("ours float32", fail)
    assert timing.first_run("ours bf16 shift", fail) is None  # nor what is not chosen
    assert capsys.readouterr().out == "ours bf16 shift does not run: no kernel\n"


def test_a_way_that_computes_something_else_is_not_timed(capsys):
    image = np.zeros((1, 4, 4, 3), np.float32)
    ways = {"ours float32": lambda: image, "torch float32": lambda: image + 1e-4}
    assert list(inference.check(ways)) == ["ours float32"]
    assert "torch float32 is another function" in capsys.readouterr().out
    ways["ours bf16"] = lambda: image + 1
    with pytest.raises(InputError, match="ours bf16: another function"):
        inference.check(ways)
    steps = {"ours float32": lambda: 1.0, "torch float32": lambda: 1.1}
    assert list(training_step.check(steps)) == ["ours float32"]
    assert "torch float32 is not timed: its loss is 1.1" in capsys.readouterr().out


def test_a_package_of_another_name_has_a_version(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(timing, "version", absent)
    monkeypatch.setattr(timing, "PACKAGES", ("jax",))
    assert timing.environment()["versions"] == {"jax": jax.__version__}


@pytest.mark.parametrize("output", [["--output", "/a/b.json"], ["--output=b.json"], []])
def test_the_command_is_recorded_as_anybody_would_type_it(monkeypatch, output):
    words = [
        str(ROOT / "benchmarks/inference.py"),
        "--rounds",
        "3",
        *output,
        "--others",
    ]
    monkeypatch.setattr("sys.argv", words)
    command = "python benchmarks/inference.py --rounds 3 --others"
    assert timing.environment()["command"] == command


@pytest.mark.parametrize("training", [False, True])
def test_the_network_takes_what_a_benchmark_chooses(training):
    model = LKDN(scale=2, features=4, num_blocks=1)
    params, lr = draw_params(model), np.zeros((1, 8, 8, 3), np.float32)

    def output(params):
        return model.apply({"params": params}, lr).sum()

    def program(implementation):
        with timing.depthwise(implementation):
            function = jax.grad(output) if training else output
            return str(jax.make_jaxpr(function)(params))

    sums, grouped, kernels = map(program, ("shift", "lax", "pallas"))
    assert grouped.count("conv_general_dilated") > sums.count("conv_general_dilated")
    assert kernels.count("pallas_call") > sums.count("pallas_call") == 0


def test_what_is_no_number_is_no_small_difference():
    ones, bad = np.ones(2), np.array([0, np.nan])
    assert not check_device.difference([ones, bad], [ones, ones]) <= 1e9
    assert check_device.difference([ones, ones], [ones, 3 * ones]) == 2


def test_the_device_is_checked_to_the_end(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(check_device, "check_network", lambda *_: [("net", 0.5, 1.0)])
    monkeypatch.setattr(check_device, "check_depthwise", lambda *_: [("a", np.inf, 1)])
    monkeypatch.setattr(check_device, "check_inference", lambda *_: [])
    output = tmp_path / "check.json"
    monkeypatch.setattr(
        sys, "argv", ["x", "--output", str(output), "--reference", str(tmp_path)]
    )
    with pytest.raises(InputError, match="1 of 2 are further off: a, …"):
        check_device.main()
    assert f"0 outputs of the authors' in {tmp_path}" in capsys.readouterr().out
    assert not output.exists()  # so that it is run again
    record = json.loads((tmp_path / "check-failed.json").read_text())["checks"]
    assert [row["error"] for row in record] == [None, 0.5]


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("bf16", 2)])
def test_the_bound_of_a_network(precision, size):
    pixels = 320 * 180
    bound = roofline(LKDN(), {"product": 1e12, "copy": 1e9}, pixels, precision)
    assert bound["operations"] == pytest.approx(2 * 18.2e9, rel=5e-3)  # as published
    # Of a block three 3×3 of 56 channels, one of 28 and two 5×5; and two 3×3.
    maps = 8 * (3 * 56 + 28 + 2 * 56) + 2 * 56
    moved = pixels * (size * 2 * maps + 4 * (3 + 48))
    assert bound["bytes"] == moved
    assert bound["seconds"] == moved / 1e9
    training = roofline(
        LKDN(), {"product": 1e9, "copy": 1e12}, pixels, precision, training=True
    )
    assert training["operations"] == 3 * bound["operations"]
    assert training["seconds"] == training["operations"] / 1e9


PYTHON = """#!/bin/sh
echo "$1" >> "{folder}/calls"
test "$1" = benchmarks/check_device.py && exit 1
while test "$1" != --output; do shift; done
echo {{}} > "$2"
"""


def test_the_benchmarks_go_on_where_they_were_cut_off(tmp_path):
    folder, python = tmp_path / "of two words", tmp_path / "my python"
    python.write_text(PYTHON.format(folder=tmp_path))
    python.chmod(0o755)

    def calls(**budget):
        command = [ROOT / "benchmarks/all.sh", folder.name, python]
        (tmp_path / "calls").write_text("")
        env = os.environ | budget
        done = subprocess.run(command, cwd=tmp_path, env=env, check=False)
        assert done.returncode == 1  # the check fails
        made = (tmp_path / "calls").read_text().split()
        return [Path(call).stem for call in made]

    timed = [*["inference"] * 3, "training_step"]
    assert calls() == ["check_device", *timed, *timed]
    assert len(list(folder.glob("*.json"))) == 8
    (folder / "inference-8x180x320-tf32.json").unlink()
    assert calls(BUDGET="100") == ["check_device", "inference"]
    (folder / "inference-8x180x320-tf32.json").unlink()
    assert calls(BUDGET="0") == []
    no_folder = subprocess.run([ROOT / "benchmarks/all.sh"], capture_output=True)
    assert no_folder.returncode != 0
    assert b"give the folder" in no_folder.stderr
