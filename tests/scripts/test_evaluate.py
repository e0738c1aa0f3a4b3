"""evaluate.py as a user runs it."""

import html
import json

import pytest
from PIL import Image

from lkdn_jax.weights.export import export


def test_evaluate_writes_a_report(run, tmp_path, weights, data):
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


def test_evaluate_writes_all_it_is_asked_for(run, tmp_path, weights, data):
    folded = tmp_path / "folded.msgpack"
    export(weights / "s_x2.msgpack", folded)
    page, saved, figures = (tmp_path / name for name in ("r.html", "saved", "figures"))
    listed = tmp_path / "r.csv"
    result = run(
        "evaluate.py", "--weights", weights / "x2.msgpack", "--weights", folded,
        "--data", data, "--output", page, "--output", listed,
        "--figures", figures, "--rgb", "--save_images", saved, "--lr_mode", "basicsr",
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    for written in (page, listed, figures, saved):
        assert written.exists()
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
def test_evaluate_on_bad_input(
    run, assert_one_line_error, tmp_path, weights, data, name
):
    report = tmp_path / "report.json"
    report.write_text("what was there")
    arguments, expected = bad_input(name, weights, data)
    arguments = {"--output": report} | arguments
    flat = [word for flag in arguments.items() for word in flag]
    assert_one_line_error(run("evaluate.py", *flat), *expected)
    assert report.read_text() == "what was there"
    assert {file.name for file in tmp_path.iterdir()} == {"report.json", "Sét"}


def test_a_report_is_whole_or_absent(
    run, assert_one_line_error, tmp_path, weights, data
):
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
