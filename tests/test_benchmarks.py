"""What the benchmarks report is what the clock and the networks say."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import timing
from benchmarks.roofline import roofline
from lkdn_jax import LKDN

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

    def calls():
        command = [ROOT / "benchmarks/all.sh", folder.name, python]
        done = subprocess.run(command, cwd=tmp_path, check=False)
        assert done.returncode == 1  # the check fails
        made = (tmp_path / "calls").read_text().split()
        (tmp_path / "calls").unlink()
        return [Path(call).stem for call in made]

    timed = [*["inference"] * 3, "training_step"]
    assert calls() == ["check_device", *timed, *timed]
    assert len(list(folder.glob("*.json"))) == 8
    (folder / "inference-8x180x320-tf32.json").unlink()
    assert calls() == ["check_device", "inference"]
    no_folder = subprocess.run([ROOT / "benchmarks/all.sh"], capture_output=True)
    assert no_folder.returncode != 0
    assert b"give the folder" in no_folder.stderr
