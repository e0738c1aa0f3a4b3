"""The scripts as a user runs them: exit codes, one-line errors, whole files."""

import html
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import lkdn_jax
from lkdn_jax import LKDN, InputError, demo, lkdn_s
from lkdn_jax.weights.export import export

ROOT = Path(__file__).parents[1]


def run(*args, **env):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line_error(result, *parts):
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for part in ("error: ", *parts):
        assert part in lines[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory, init):
    folder = tmp_path_factory.mktemp("weights")
    for name, model in (
        ("x2", LKDN(scale=2, features=4, num_blocks=1)),
        ("s_x2", lkdn_s(2, features=4, num_blocks=1)),
    ):
        lkdn_jax.save(folder / f"{name}.msgpack", model, init(model)["params"])
    return folder


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "Sét"
    folder.mkdir()
    for name in "ab":
        image = rng.integers(0, 256, (30, 34, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def test_evaluate_writes_a_report(tmp_path, weights, data):
    output = tmp_path / "new" / "report.json"
    result = run(
        "evaluate.py", "--weights", weights / "x2.msgpack", "--data", data,
        "--output", output, "--scale", 2,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    report = json.loads(output.read_text(encoding="utf-8"))
    assert set(report["datasets"]["Sét"]["images"]) == {"a.png", "b.png"}
    assert f"{report['datasets']['Sét']['mean']['psnr_y']:.4f}" in result.stdout


def bad_input(name, weights, data):
    """Return arguments of evaluate.py and what its one line of error must name."""
    arguments = {"--weights": weights / "x2.msgpack", "--data": data}
    expected = ()
    if name == "missing folder":
        arguments["--data"] = data / "none"
        expected = (str(data / "none"),)
    elif name == "no pairs":
        arguments["--data"] = weights
        expected = (str(weights), "no images")
    elif name == "truncated image":
        content = (data / "b.png").read_bytes()
        (data / "b.png").write_bytes(content[: len(content) // 2])
        expected = ("b.png", "truncated")
    elif name == "sizes that do not match":
        (data / "a.png").rename(data / "a_HR.png")
        (data / "b.png").rename(data / "a_LR.png")
        expected = ("a_LR.png is 30x34", "must be 15x17")
    elif name == "weights of another scale":
        arguments["--scale"] = 4
        expected = ("weights for scale 2 where scale 4",)
    elif name == "text as weights":
        arguments["--weights"] = data / "weights.msgpack"
        (data / "weights.msgpack").write_text("These are no weights.\n")
        expected = ("weights.msgpack",)
    elif name == "half a msgpack":
        content = (weights / "x2.msgpack").read_bytes()
        arguments["--weights"] = data / "half.msgpack"
        (data / "half.msgpack").write_bytes(content[: len(content) // 2])
        expected = ("half.msgpack", "damaged")
    elif name == "unknown report":
        arguments["--output"] = data / "report.doc"
        expected = ("report.doc", ".json, .md, .csv")
    elif name == "unknown flag":
        arguments["--weight"] = 1
        expected = ("--weight", "--help")
    return arguments, expected


@pytest.mark.parametrize(
    "name",
    [
        "missing folder",
        "no pairs",
        "truncated image",
        "sizes that do not match",
        "weights of another scale",
        "text as weights",
        "half a msgpack",
        "unknown report",
        "unknown flag",
    ],
)
def test_evaluate_on_bad_input(tmp_path, weights, data, name):
    report = tmp_path / "report.json"
    report.write_text("what was there")
    arguments, expected = bad_input(name, weights, data)
    arguments = {"--output": report} | arguments
    flat = [word for flag in arguments.items() for word in flag]
    assert_one_line_error(run("evaluate.py", *flat), *expected)
    assert report.read_text() == "what was there"
    assert {file.name for file in tmp_path.iterdir()} == {"report.json", "Sét"}


def test_a_report_is_whole_or_absent(tmp_path, weights, data):
    report = tmp_path / "report.json"
    report.write_text("what was there")
    limited = (
        "import resource, runpy, signal, sys;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    result = run(
        "-c", limited, "evaluate.py", "--weights", weights / "x2.msgpack",
        "--data", data, "--output", report,
        # Half of a program would stay in the cache that all tests share.
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="1e9",
    )  # fmt: skip
    assert_one_line_error(result, "report.json", "File too large")
    assert report.read_text() == "what was there"
    assert {file.name for file in tmp_path.iterdir()} == {"report.json", "Sét"}


def test_upscale_names_what_failed(tmp_path, weights, data):
    content = (data / "b.png").read_bytes()
    (data / "b.png").write_bytes(content[: len(content) // 2])
    command = ("upscale.py", "--weights", weights / "x2.msgpack", "--output", tmp_path)
    alone = run(*command, data / "b.png")
    assert_one_line_error(alone, "error: ", "b.png", "truncated")
    assert {file.name for file in tmp_path.iterdir()} == {"Sét"}
    result = run(*command, data)
    failed, error = result.stderr.strip().splitlines()
    assert failed.startswith(f"failed: {data / 'b.png'}")
    assert error == "error: 1 of 2 images failed"
    assert result.returncode == 1
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (68, 60)
    assert {file.name for file in tmp_path.iterdir()} == {"Sét", "a.png"}


def test_export_folds(tmp_path, weights):
    output = tmp_path / "folded.msgpack"
    result = run("export.py", "--weights", weights / "s_x2.msgpack", "--output", output)
    assert result.returncode == 0, result.stderr
    model, _ = lkdn_jax.load(output)
    assert model == LKDN(scale=2, features=4, num_blocks=1)
    assert (
        result.stdout.count("parameters") == result.stdout.count("multiply-adds") == 2
    )
    assert "largest difference" in result.stdout


def test_export_without_folding_is_bit_equal(tmp_path, weights):
    source, output = weights / "s_x2.msgpack", tmp_path / "same.msgpack"
    result = run("export.py", "--weights", source, "--output", output, "--no-fold")
    assert result.returncode == 0, result.stderr
    assert output.read_bytes() == source.read_bytes()
    assert "nothing was folded" in result.stdout
    assert "largest difference" not in result.stdout


def test_export_refuses_what_does_not_fold_exactly(tmp_path, init):
    model = lkdn_s(2, features=4, num_blocks=1)
    params = init(model)["params"]
    for branch in params["upsampler"].values():
        branch["kernel"] *= 1e4
    lkdn_jax.save(tmp_path / "huge.msgpack", model, params)
    output = tmp_path / "folded.msgpack"
    result = run(
        "export.py", "--weights", tmp_path / "huge.msgpack", "--output", output
    )
    assert_one_line_error(result, "folding changes the output by", "--no-fold")
    assert not output.exists()


def test_export_refuses_to_lose_what_is_trained(tmp_path, weights, init):
    source = tmp_path / "s_x2.msgpack"
    source.write_bytes(content := (weights / "s_x2.msgpack").read_bytes())
    os.link(source, tmp_path / "same.msgpack")
    for output in (source, tmp_path / "same.msgpack"):
        with pytest.raises(InputError, match="would lose the form that is trained"):
            export(source, output)
    assert source.read_bytes() == content
    model = lkdn_s(2, features=4, num_blocks=1)
    params = jax.tree.map(lambda leaf: leaf * np.nan, init(model)["params"])
    lkdn_jax.save(source, model, params)
    with pytest.raises(InputError, match="parameters that are not finite"):
        export(source, tmp_path / "folded.msgpack")
    assert not (tmp_path / "folded.msgpack").exists()


def test_evaluate_writes_all_it_is_asked_for(tmp_path, weights, data):
    folded = tmp_path / "folded.msgpack"
    export(weights / "s_x2.msgpack", folded)
    page, saved, figures = (tmp_path / name for name in ("r.html", "saved", "figures"))
    result = run(
        "evaluate.py", "--weights", weights / "x2.msgpack", "--weights", folded,
        "--data", data, "--output", page, "--figures", figures, "--rgb",
        "--save_images", saved, "--lr_mode", "basicsr",
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    for written in (page, figures, saved):
        assert f"wrote {written}" in result.stdout
    assert "PSNR RGB" in result.stdout
    text = page.read_text(encoding="utf-8")
    for words in ("x2", "folded", "Sét", "multiply-adds", "data:image/"):
        assert words in text
    assert "BasicSR's bicubic" in html.unescape(text)
    assert len(list(figures.glob("*.png"))) == 4  # two networks, best and worst
    found = sorted(str(file.relative_to(saved)) for file in saved.rglob("*.png"))
    assert found == [
        f"{name}/Sét/{image}.png" for name in ("folded", "x2") for image in "ab"
    ]
    with Image.open(saved / found[0]) as image:
        assert image.size == (34, 30)


def test_upscale_does_what_it_is_asked_for(tmp_path, weights, data):
    frames = [Image.open(data / f"{name}.png") for name in "ab"]
    frames[0].save(data / "c.jpg", "MPO", save_all=True, append_images=frames[1:])
    (data / "d.gif").write_bytes(b"")
    output = tmp_path / "out"
    command = (
        "upscale.py", "--weights", weights / "x2.msgpack", "--output", output, data,
        "--format", "webp", "--fit", "40x40", "--tile", 32, "--context", 4,
        "--self_ensemble", "--device", "cpu",
    )  # fmt: skip
    first = run(*command)
    assert (first.returncode, first.stderr) == (0, "")
    assert "d.gif" not in first.stdout
    assert "files passed over: 1 (.gif)" in first.stdout
    assert f"3 upscaled, 0 already in {output}" in first.stdout
    assert {file.name for file in output.iterdir()} == {"a.webp", "b.webp", "c.webp"}
    upscaler = lkdn_jax.Upscaler(
        weights / "x2.msgpack", tile=32, context=4, self_ensemble=True
    )
    with Image.open(output / "a.webp") as image:
        expected = upscaler(frames[0]).resize((40, 35), Image.Resampling.LANCZOS)
        difference = np.abs(np.subtract(image, expected, dtype=int))
        assert difference.max() <= 1
    assert "3 upscaled, 0 already" in run(*command, "--overwrite").stdout


def test_a_script_whose_output_nobody_takes(tmp_path, weights):
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


CLOSED = """
import os, sys
os.close(1)
os.execv(sys.argv[1], sys.argv[1:])
"""


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


def test_demo_refuses_other_weights_before_it_trains(tmp_path, weights, monkeypatch):
    page = tmp_path / "LKDN_x4.pth"
    page.write_text("<!DOCTYPE html>")
    for path, message in (
        (page, r"LKDN_x4\.pth: not a \.pth file"),
        (weights / "x2.msgpack", "for scale 2; the demo compares at 4"),
    ):
        words = ["--output", tmp_path / "demo", "--weights", path]
        monkeypatch.setattr(sys, "argv", ["demo", *map(str, words)])
        with pytest.raises(InputError, match=message):
            demo.main()
    assert not (tmp_path / "demo").exists()


def test_demo_refuses_weights_that_are_not_there(tmp_path):
    demo = ("-m", "lkdn_jax.demo", "--output", tmp_path / "demo")
    result = run(*demo, "--weights", tmp_path / "none.pth")
    assert_one_line_error(result, "none.pth", "no such file")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("upscale.py", "--wieghts", "x4.pth", "a.png"), "--weights"),
        (("evaluate.py", "--weights=x4.pth", "--data=Set5", "--scle=4"), "--scale"),
        (("train.py", "--config=configs/x4.py", "--workdr=runs"), "--workdir"),
        (("upscale.py", "-weights", "x4.pth", "a.png"), "--weights"),
    ],
)
def test_a_mistyped_option_is_recognized(words, near):
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
def test_an_empty_word_is_not_this_folder(words, message):
    assert_one_line_error(run(*words), f"argument {message}")


def test_words_after_two_dashes_are_no_options():
    result = run("upscale.py", "--weights=x4.pth", "--fit=abc", "--", "--wights.png")
    assert_one_line_error(result, "'abc': give width and height")


def test_a_platform_that_is_not_there(weights):
    words = ("export.py", "--weights", weights / "x2.msgpack", "--output", "x.msgpack")
    result = run(*words, JAX_PLATFORMS="nonsense")
    assert_one_line_error(result, "JAX_PLATFORMS=nonsense", "unset it")


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


@pytest.mark.parametrize(
    "words",
    [
        ("upscale.py", "--weights=x4.pth", "--output=out", "a.png"),
        ("evaluate.py", "--weights=x4.pth", "--data=Set5"),
        ("export.py", "--weights=x4.pth", "--output=x4.msgpack"),
        ("train.py", "--config=configs/x4.py", "--workdir=runs"),
    ],
)
def test_outside_the_environment_the_scripts_say_what_to_do(words):
    result = run("-S", *words)  # no installed packages
    assert_one_line_error(result, "is not installed", "source .venv/bin/activate")
    assert result.returncode == 1
