"""What the demo refuses; that it gains is looked at by .ci/run."""

import sys

import pytest

from lkdn_jax import InputError, demo


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


def test_demo_refuses_weights_that_are_not_there(run, assert_one_line_error, tmp_path):
    demo = ("-m", "lkdn_jax.demo", "--output", tmp_path / "demo")
    result = run(*demo, "--weights", tmp_path / "none.pth")
    assert_one_line_error(result, "none.pth", "no such file")
    assert not (tmp_path / "demo").exists()
